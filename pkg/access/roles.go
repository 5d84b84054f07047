package access

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

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

var allRoles = []Role{SecurityAdmin, User, Auditor}

// Holding is one role of one user in one project.
type Holding struct {
	UID     uint32
	User    string
	Project string
	Role    Role
}

// Caller is who holds it.
func (h Holding) Caller() Caller { return Caller{h.UID, h.User} }

// roleRecord is a user's roles in a project at role/PROJECT/UID. The name is kept for showing; the uid decides.
type roleRecord struct {
	Version int    `json:"v"`
	User    string `json:"user"`
	Roles   []Role `json:"roles"`
}

func (r roleRecord) check(string) error {
	if err := checkVersion(r.Version); err != nil {
		return err
	}
	for i, role := range r.Roles {
		if !slices.Contains(allRoles, role) || slices.Contains(r.Roles[:i], role) {
			return fmt.Errorf("its roles are %q", r.Roles)
		}
	}
	return nil
}

// oversees tells whether these roles, held in the project default, let somebody see the whole store.
func (r roleRecord) oversees() bool {
	return slices.ContainsFunc(r.Roles, func(role Role) bool { return slices.Contains(overseers, role) })
}

func rolePrefix(project string) string { return "role/" + project + "/" }

// roleKey sorts by uid.
func roleKey(project string, uid uint32) string {
	return fmt.Sprintf("%s%010d", rolePrefix(project), uid)
}

// readRoles reads a user's roles; who has no record has none.
func readRoles(r catalog.Reader, name string) (roleRecord, error) {
	rec, err := get[roleRecord](r, name)
	if errors.Is(err, catalog.ErrNotFound) {
		return roleRecord{Version: recordVersion}, nil
	}
	return rec, err
}

func writeRoles(t catalog.Txn, name string, rec roleRecord) error {
	if len(rec.Roles) == 0 {
		return t.Delete(name)
	}
	return put(t, name, rec)
}

// Grant gives a user a role; who has it keeps it. both tells that the user may administer keys and use data now, which are kept apart
// by this role (rule C17): it takes two grants, and nobody who administers keys gives himself the other.
func (a *Access) Grant(ctx context.Context, request string, by Caller, h Holding) (both bool, err error) {
	if !slices.Contains(allRoles, h.Role) {
		return false, refusal.New(refusal.Usage, "the roles are security-admin, user and auditor", "there is no role %.100q", h.Role)
	}
	err = a.change(ctx, request, h, func(rec *roleRecord) error {
		if !slices.Contains(rec.Roles, h.Role) {
			rec.Roles = append(rec.Roles, h.Role)
		}
		both = h.Role != Auditor && slices.Contains(rec.Roles, SecurityAdmin) && slices.Contains(rec.Roles, User)
		if both && by.UID == h.UID && !a.boss(by) {
			return errHimself
		}
		return nil
	})
	if errors.Is(err, errHimself) {
		err = a.notToHimself(ctx, by, h.Project, "the role "+string(h.Role)+" as well")
	}
	return both, err
}

// errHimself tells who would let himself use what he administers.
var errHimself = errors.New("access: nobody gives it to himself")

// notToHimself refuses who administers keys the use of data by his own word.
func (a *Access) notToHimself(ctx context.Context, c Caller, project, what string) error {
	names, err := a.Administrators(ctx, project)
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return n == c.name() })
	return refusal.New(refusal.Denied, "ask "+strings.Join(names, " or ")+" to do it",
		"%s administers the keys of project %s and can't give himself %s: that takes another", c.name(), project, what)
}

// Revoke takes a role away.
func (a *Access) Revoke(ctx context.Context, request string, h Holding) error {
	return a.change(ctx, request, h, func(rec *roleRecord) error {
		if !slices.Contains(rec.Roles, h.Role) {
			return refusal.New(refusal.NotFound, "`nbdcrypt role list --project "+h.Project+"` lists who has which role",
				"%s does not have the role %.100s in project %s", h.Caller().name(), h.Role, h.Project)
		}
		rec.Roles = slices.DeleteFunc(rec.Roles, func(r Role) bool { return r == h.Role })
		return nil
	})
}

func (a *Access) change(ctx context.Context, request string, h Holding, fn func(*roleRecord) error) error {
	name := roleKey(h.Project, h.UID)
	return damaged(catalog.Commit(ctx, a.store, request, func(t catalog.Txn) error {
		rec, err := readRoles(t, name)
		if err != nil {
			return err
		}
		rec.User = h.User
		if err := fn(&rec); err != nil {
			return err
		}
		return writeRoles(t, name, rec)
	}))
}

// List lists who holds which role in a project, by uid.
func (a *Access) List(ctx context.Context, project string) (all []Holding, err error) {
	err = a.store.View(ctx, func(r catalog.Reader) error {
		return each(r, rolePrefix(project), func(name string, rec roleRecord) error {
			uid, err := strconv.ParseUint(name[len(rolePrefix(project)):], 10, 32)
			if err != nil {
				return fmt.Errorf("%w: record %q: %w", catalog.ErrDamaged, name, err)
			}
			for _, role := range rec.Roles {
				all = append(all, Holding{uint32(uid), rec.User, project, role})
			}
			return nil
		})
	})
	return all, damaged(err)
}
