package access

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// Role is what a user may be in a project.
type Role string

// The roles, in the words of the command line.
const (
	SecurityAdmin Role = "security-admin"
	User          Role = "user"
	Auditor       Role = "auditor"
)

// Holding is one role of one user in one project.
type Holding struct {
	UID     uint32
	User    string
	Project string
	Role    Role
}

// Caller is who holds it.
func (h Holding) Caller() Caller { return Caller{h.UID, h.User} }

// record is a user's roles in a project at role/PROJECT/UID. The name is kept for showing; the uid decides.
type record struct {
	Version int    `json:"v"`
	User    string `json:"user"`
	Roles   []Role `json:"roles"`
}

const recordVersion = 1

func prefix(project string) string { return "role/" + project + "/" }

// key sorts by uid.
func key(project string, uid uint32) string { return fmt.Sprintf("%s%010d", prefix(project), uid) }

func read(r catalog.Reader, name string) (rec record, err error) {
	b, err := r.Get(name)
	if errors.Is(err, catalog.ErrNotFound) {
		return record{Version: recordVersion}, nil
	}
	if err != nil {
		return rec, err
	}
	return rec, parse(name, b, &rec)
}

func parse(name string, b []byte, rec *record) error {
	err := json.Unmarshal(b, rec)
	if err == nil && rec.Version != recordVersion {
		err = fmt.Errorf("it has version %d, this build reads version %d", rec.Version, recordVersion)
	}
	if err != nil {
		return fmt.Errorf("%w: record %q: %w", catalog.ErrDamaged, name, err)
	}
	return nil
}

func write(t catalog.Txn, name string, rec record) error {
	if len(rec.Roles) == 0 {
		return t.Delete(name)
	}
	b, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("access: %w", err)
	}
	return t.Put(name, b)
}

// damaged makes a refusal of damage below.
func damaged(err error) error {
	if !errors.Is(err, catalog.ErrDamaged) {
		return err
	}
	return refusal.New(refusal.Damaged, "`nbdcrypt check` lists what is damaged", "the roles can't be read: %w", err)
}

// roles are those that a caller holds; none where they can't be read because the catalog is closed.
func (a *Access) roles(ctx context.Context, c Caller, project string) (roles []Role, err error) {
	if a.store == nil {
		return nil, nil
	}
	err = a.store.View(ctx, func(r catalog.Reader) error {
		rec, err := read(r, key(project, c.UID))
		roles = rec.Roles
		return err
	})
	return roles, damaged(err)
}

// Grant gives a user a role; who has it keeps it.
func (a *Access) Grant(ctx context.Context, request string, h Holding) error {
	if !slices.Contains([]Role{SecurityAdmin, User, Auditor}, h.Role) {
		return refusal.New(refusal.Usage, "the roles are security-admin, user and auditor", "%w: %.100q", errNoRole, h.Role)
	}
	return a.change(ctx, request, h, func(rec *record) error {
		if !slices.Contains(rec.Roles, h.Role) {
			rec.Roles = append(rec.Roles, h.Role)
		}
		return nil
	})
}

// Revoke takes a role away.
func (a *Access) Revoke(ctx context.Context, request string, h Holding) error {
	return a.change(ctx, request, h, func(rec *record) error {
		if !slices.Contains(rec.Roles, h.Role) {
			return refusal.New(refusal.NotFound, "nothing is to be done: the user has no such right",
				"%s does not have the role %s in project %s", h.Caller().name(), h.Role, h.Project)
		}
		rec.Roles = slices.DeleteFunc(rec.Roles, func(r Role) bool { return r == h.Role })
		return nil
	})
}

func (a *Access) change(ctx context.Context, request string, h Holding, fn func(*record) error) error {
	name := key(h.Project, h.UID)
	return damaged(catalog.Commit(ctx, a.store, request, func(t catalog.Txn) error {
		rec, err := read(t, name)
		if err != nil {
			return err
		}
		rec.User = h.User
		if err := fn(&rec); err != nil {
			return err
		}
		return write(t, name, rec)
	}))
}

// List lists who holds which role in a project, by uid.
func (a *Access) List(ctx context.Context, project string) (all []Holding, err error) {
	err = a.store.View(ctx, func(r catalog.Reader) error {
		for after := ""; ; {
			pairs, err := r.Scan(prefix(project), after, 256)
			if err != nil || len(pairs) == 0 {
				return err
			}
			for _, p := range pairs {
				after = p.Key
				if all, err = list(all, project, p); err != nil {
					return err
				}
			}
		}
	})
	return all, damaged(err)
}

func list(all []Holding, project string, p catalog.Pair) ([]Holding, error) {
	var rec record
	if err := parse(p.Key, p.Value, &rec); err != nil {
		return all, err
	}
	var uid uint32
	if _, err := fmt.Sscanf(p.Key[len(prefix(project)):], "%d", &uid); err != nil {
		return all, fmt.Errorf("%w: record %q", catalog.ErrDamaged, p.Key)
	}
	for _, role := range rec.Roles {
		all = append(all, Holding{uid, rec.User, project, role})
	}
	return all, nil
}
