package access

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// Operation is what a key grant allows to be done with the key, in the words of the command line.
type Operation string

// The operations.
const (
	// Decrypt is for attaching, detaching and seeing the disks under the key.
	Decrypt Operation = "decrypt"
	// Encrypt is for making disks under the key, and moving disks to it.
	Encrypt Operation = "encrypt"
	// Describe is for seeing the key and what it is used by.
	Describe Operation = "describe"
	// AnyOperation is no operation: a rule asks for it where each will do.
	AnyOperation Operation = "any"
)

var operations = []Operation{Decrypt, Encrypt, Describe}

// MaxKeyGrants is how many grants a key may have.
const MaxKeyGrants = 100

// KeyGrant lets one user do one thing with one key, whatever roles he has (rule B8). Several add up.
type KeyGrant struct {
	ID, Key, Project string
	UID              uint32
	User             string
	Operation        Operation
	By               string
	Created          time.Time
}

// keyGrantRecord is a KeyGrant at key-grant/CMK/ID. The name is kept for showing; the uid decides.
type keyGrantRecord struct {
	Version   int       `json:"v"`
	ID        string    `json:"id"`
	Key       string    `json:"key"`
	Project   string    `json:"project"`
	UID       uint32    `json:"uid"`
	User      string    `json:"user"`
	Operation Operation `json:"operation"`
	By        string    `json:"by"`
	Created   time.Time `json:"created"`
}

func (g keyGrantRecord) check(name string) error {
	if err := checkVersion(g.Version); err != nil {
		return err
	}
	switch {
	case keyGrantKey(g.Key, g.ID) != name:
		return fmt.Errorf("it is grant %q of key %q", g.ID, g.Key)
	case !slices.Contains(operations, g.Operation):
		return fmt.Errorf("it is for the operation %q", g.Operation)
	case g.Project == "" || g.UID == NoUID:
		return errors.New("it is incomplete")
	}
	return nil
}

func (g keyGrantRecord) grant() KeyGrant {
	return KeyGrant{g.ID, g.Key, g.Project, g.UID, g.User, g.Operation, g.By, g.Created}
}

func (g KeyGrant) record() keyGrantRecord {
	return keyGrantRecord{recordVersion, g.ID, g.Key, g.Project, g.UID, g.User, g.Operation, g.By, g.Created}
}

// KeyGrantPrefix is what the names of a key's grants begin with: they go with the key.
func KeyGrantPrefix(key string) string { return "key-grant/" + key + "/" }

func keyGrantKey(key, id string) string { return KeyGrantPrefix(key) + id }

// keyGrants are the grants of a key in a project.
func keyGrants(r catalog.Reader, project, key string) (list []KeyGrant, err error) {
	err = each(r, KeyGrantPrefix(key), func(_ string, rec keyGrantRecord) error {
		if rec.Project == project {
			list = append(list, rec.grant())
		}
		return nil
	})
	return list, err
}

// KeyGrants lists the grants of a key, which is named by its id.
func (a *Access) KeyGrants(ctx context.Context, project, key string) (list []KeyGrant, err error) {
	err = a.store.View(ctx, func(r catalog.Reader) (err error) {
		list, err = keyGrants(r, project, key)
		return err
	})
	slices.SortFunc(list, func(a, b KeyGrant) int { return a.Created.Compare(b.Created) })
	return list, damaged(err)
}

// allows tells whether a grant is a caller's, and for an operation.
func (g KeyGrant) allows(c Caller, op Operation) bool {
	return g.UID == c.UID && (op == AnyOperation || g.Operation == op)
}

// hasGrant tells whether a grant of a key lets a caller do an operation. Grants that can't be read are an error only where no other
// does.
func hasGrant(r catalog.Reader, c Caller, project string, op Operation, key string) (yes bool, err error) {
	var bad error
	err = catalog.Walk(r, KeyGrantPrefix(key), func(p catalog.Pair, err error) error {
		var rec keyGrantRecord
		if err == nil {
			rec, err = parse[keyGrantRecord](p.Key, p.Value)
		}
		if errors.Is(err, catalog.ErrDamaged) {
			bad, err = err, nil
		}
		yes = yes || rec.Project == project && rec.grant().allows(c, op)
		return err
	})
	if err == nil && !yes {
		err = bad
	}
	return yes, err
}

// granted tells whether a grant of one of the keys allows an operation.
func (a *Access) granted(ctx context.Context, c Caller, project string, op Operation, keys Keys) (bool, error) {
	if op == "" || keys == nil {
		return false, nil
	}
	ids, err := keys(ctx)
	if err != nil {
		return false, err
	}
	for _, id := range ids {
		if yes, err := a.Granted(ctx, c, project, op, id); err != nil || yes {
			return yes, err
		}
	}
	return false, nil
}

// Granted tells whether a grant of a key lets a caller do an operation.
func (a *Access) Granted(ctx context.Context, c Caller, project string, op Operation, key string) (bool, error) {
	var yes bool
	err := a.store.View(ctx, func(r catalog.Reader) (err error) {
		yes, err = hasGrant(r, c, project, op, key)
		return err
	})
	return yes, damaged(err)
}

// GrantKey gives a user the use of a key. Who has that grant already keeps it. both tells that the user administers keys as well, which
// is kept apart from using data (rule C17): nobody gives it to himself.
func (a *Access) GrantKey(ctx context.Context, request string, by Caller, g KeyGrant) (made KeyGrant, both bool, err error) {
	if !slices.Contains(operations, g.Operation) {
		return g, false, refusal.New(refusal.Usage, "the operations are decrypt, encrypt and describe", "there is no operation %.100q", g.Operation)
	}
	a.making.Lock()
	defer a.making.Unlock()
	err = catalog.Commit(ctx, a.store, request, func(t catalog.Txn) error {
		roles, err := readRoles(t, roleKey(g.Project, g.UID))
		if err != nil {
			return err
		}
		both = g.Operation != Describe && slices.Contains(roles.Roles, SecurityAdmin)
		if both && by.UID == g.UID && !a.boss(by) {
			return errHimself
		}
		made, err = addKeyGrant(t, g)
		return err
	})
	if errors.Is(err, errHimself) {
		err = a.notToHimself(ctx, by, g.Project, "the grant "+string(g.Operation))
	}
	return made, both, damaged(err)
}

func addKeyGrant(t catalog.Txn, g KeyGrant) (KeyGrant, error) {
	list, err := keyGrants(t, g.Project, g.Key)
	if err != nil {
		return g, err
	}
	for _, old := range list {
		if old.UID == g.UID && old.Operation == g.Operation {
			return old, nil
		}
	}
	if len(list) >= MaxKeyGrants {
		return g, refusal.New(refusal.Busy, "revoke one that is not needed any more, or give roles instead",
			"the key has %d grants, and no more are allowed", len(list))
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return g, fmt.Errorf("access: %w", err)
	}
	g.ID = id.String()
	return g, put(t, keyGrantKey(g.Key, g.ID), g.record())
}

// RevokeKey takes a grant of a key back.
func (a *Access) RevokeKey(ctx context.Context, request, project, key, id string) error {
	return a.dropKeyGrant(ctx, request, project, key, id, func(KeyGrant) error { return nil })
}

// RetireKey gives a grant back, which only the one can do who has it.
func (a *Access) RetireKey(ctx context.Context, request string, c Caller, project, key, id string) error {
	return a.dropKeyGrant(ctx, request, project, key, id, func(g KeyGrant) error {
		if g.UID == c.UID {
			return nil
		}
		return refusal.New(refusal.Denied, "an administrator of the keys takes it back with `nbdcrypt key revoke`",
			"%s can't retire a grant of %s: who has it does", c.name(), Caller{g.UID, g.User}.name())
	})
}

func (a *Access) dropKeyGrant(ctx context.Context, request, project, key, id string, may func(KeyGrant) error) error {
	err := catalog.Commit(ctx, a.store, request, func(t catalog.Txn) error {
		list, err := keyGrants(t, project, key)
		if err != nil {
			return err
		}
		for _, g := range list {
			if g.ID != id {
				continue
			}
			if err := may(g); err != nil {
				return err
			}
			return t.Delete(keyGrantKey(key, id))
		}
		return refusal.New(refusal.NotFound, "`nbdcrypt key grants` lists them", "the key has no grant %.100q", id)
	})
	return damaged(err)
}
