// Package access decides who may do what. It is asked in one place, with the caller's identity as the kernel told
// it; nothing else in the tree compares user ids. It promises nothing about what a caller who may do a thing does
// with it: the audit log shows that.
package access

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// DefaultProject exists always.
const DefaultProject = "default"

// Caller is who asks.
type Caller struct {
	UID  uint32
	User string
}

// Access answers from the roles in the catalog. Root and the user that the daemon runs as hold every role in every
// project: they appoint the first others.
type Access struct {
	store catalog.Store
	self  Caller
	// making serialises what counts before it adds: a commit does not notice what another adds beside it.
	making sync.Mutex
}

// New makes an Access over the sealed catalog; self is whom the daemon runs as.
func New(store catalog.Store, self Caller) *Access { return &Access{store: store, self: self} }

// Closed makes the Access for a catalog that is not open: nobody's roles can be read, so that only those who hold all of
// them anyway are let in.
func Closed(self Caller) *Access { return &Access{self: self} }

// boss tells who holds every role.
func (a *Access) boss(c Caller) bool { return c.UID == 0 || c.UID == a.self.UID }

// Keys tells which keys a call is about, by id. It is asked only where no role allows the call, and one grant of any of them does.
type Keys func(context.Context) ([]string, error)

// Check refuses what the caller may not do in a project: Denied with the right that is missing and who can give it. That a
// project does not exist is told to those who may make it alone.
func (a *Access) Check(ctx context.Context, c Caller, action Action, project string) error {
	return a.CheckKeys(ctx, c, action, project, nil)
}

// CheckKeys is Check for a call that a key grant may allow too (rule B8).
func (a *Access) CheckKeys(ctx context.Context, c Caller, action Action, project string, keys Keys) error {
	rule, ok := rules[action]
	if !ok {
		return fmt.Errorf("access: %v is no action", action)
	}
	if rule.store {
		project = DefaultProject
	}
	if a.store == nil {
		return a.checkClosed(c, rule, project)
	}
	if a.boss(c) && project == DefaultProject {
		return nil // whatever the catalog says, or whether it answers
	}
	s, err := a.standing(ctx, c, project)
	if err != nil {
		return err
	}
	switch {
	case s.maker && !s.exists:
		return noProject(project)
	case s.exists && s.may(rule, project):
		return nil
	}
	granted, err := a.granted(ctx, c, project, rule.grant, keys)
	if err != nil || granted {
		return err
	}
	return a.denied(ctx, c, rule, project, s)
}

// standing is what a caller is in a project.
type standing struct {
	exists bool
	boss   bool
	// maker tells who may make projects: root, the daemon's user, and security administrators of the project default. They, and its
	// auditors, oversee the whole store.
	maker    bool
	overseer bool
	roles    []Role
}

func (a *Access) standing(ctx context.Context, c Caller, project string) (s standing, err error) {
	s.boss = a.boss(c)
	err = a.store.View(ctx, func(r catalog.Reader) (err error) {
		if s.exists, err = there(r, project); err != nil || s.boss {
			s.maker, s.overseer = s.boss, s.boss
			return err
		}
		above, err := readRoles(r, roleKey(DefaultProject, c.UID))
		if err != nil {
			return err
		}
		s.maker, s.overseer = slices.Contains(above.Roles, SecurityAdmin), above.oversees()
		if !s.exists {
			return nil
		}
		here, err := readRoles(r, roleKey(project, c.UID))
		s.roles = here.Roles
		return err
	})
	return s, damaged(err)
}

// may tells whether roles are enough for an action in a project that exists.
func (s standing) may(rule rule, project string) bool {
	return s.boss || rule.overseers && s.overseer || rule.anyone && (project == DefaultProject || len(s.roles) > 0) ||
		slices.ContainsFunc(rule.roles, func(r Role) bool { return slices.Contains(s.roles, r) })
}

// checkClosed is Check where neither roles nor projects can be read.
func (a *Access) checkClosed(c Caller, rule rule, project string) error {
	if a.boss(c) || rule.anyone && project == DefaultProject {
		return nil
	}
	who := strings.Join(a.bosses(), " or ")
	return refusal.New(refusal.Denied, fmt.Sprintf("ask %s to do it for you", who),
		"%s may not %s now: roles can't be read until the root key is open, and until then only %s may", c.name(), rule.verb, who)
}

// denied says which right is missing, and who can give it. Who has nothing to do with a project hears the same of one that exists
// as of one that does not.
func (a *Access) denied(ctx context.Context, c Caller, rule rule, project string, s standing) error {
	names := a.bosses()
	if project == DefaultProject || s.overseer || len(s.roles) > 0 {
		if all, err := a.Administrators(ctx, project); err == nil {
			names = all
		}
	}
	who := strings.Join(names, " or ")
	return refusal.New(refusal.Denied, fmt.Sprintf("ask %s to do it for you", who),
		"%s may not %s in project %.100q: it takes %s, which %s can give", c.name(), rule.verb, project, rule.needs(), who)
}

// needs names the rights of which one is enough.
func (r rule) needs() string {
	var rights []string
	switch {
	case r.anyone:
		rights = append(rights, "a role there")
	case len(r.roles) > 0:
		rights = append(rights, "the role "+joinRoles(r.roles))
	}
	switch r.grant {
	case "":
	case AnyOperation:
		rights = append(rights, "a grant of the key")
	default:
		rights = append(rights, "the grant "+string(r.grant)+" of its key")
	}
	return strings.Join(rights, " or ")
}

func (c Caller) name() string {
	if c.User == "" {
		return fmt.Sprintf("user %d", c.UID)
	}
	return c.User
}

// bosses names who holds every role.
func (a *Access) bosses() []string {
	names := []string{"root"}
	if a.self.UID != 0 {
		names = append(names, a.self.name())
	}
	return names
}

// Administrators names who can grant rights and roles in a project.
func (a *Access) Administrators(ctx context.Context, project string) ([]string, error) {
	names := a.bosses()
	holders, err := a.List(ctx, project)
	if err != nil {
		return nil, err
	}
	for _, h := range holders {
		if h.Role == SecurityAdmin && !slices.Contains(names, h.Caller().name()) {
			names = append(names, h.Caller().name())
		}
	}
	return names, nil
}
