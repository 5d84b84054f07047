// Package access decides who may do what. It is asked in one place, with the caller's identity as the kernel told
// it; nothing else in the tree compares user ids. It promises nothing about what a caller who may do a thing does
// with it: the audit log shows that.
package access

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

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
}

// New makes an Access over the sealed catalog; self is whom the daemon runs as.
func New(store catalog.Store, self Caller) *Access { return &Access{store, self} }

// Closed makes the Access for a catalog that is not open: nobody's roles can be read, so that only those who hold all of
// them anyway are let in.
func Closed(self Caller) *Access { return &Access{self: self} }

// boss tells who holds every role.
func (a *Access) boss(c Caller) bool { return c.UID == 0 || c.UID == a.self.UID }

// Check refuses what the caller may not do in a project: Denied with the right that is missing and who can give
// it. That a project does not exist is told to administrators alone.
func (a *Access) Check(ctx context.Context, c Caller, action Action, project string) error {
	rule, ok := rules[action]
	if !ok {
		return fmt.Errorf("access: %v is no action", action)
	}
	if project != DefaultProject {
		if a.boss(c) {
			return refusal.New(refusal.NotFound, "the project default is there always", "there is no project %.100q", project)
		}
		return a.denied(ctx, c, rule, project)
	}
	if rule.anyone || a.boss(c) {
		return nil
	}
	held, err := a.roles(ctx, c, project)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(rule.roles, func(r Role) bool { return slices.Contains(held, r) }) {
		return nil
	}
	return a.denied(ctx, c, rule, project)
}

func (a *Access) denied(ctx context.Context, c Caller, rule rule, project string) error {
	if a.store == nil {
		return a.deniedClosed(c, rule)
	}
	names, err := a.Administrators(ctx, project)
	if err != nil {
		return err
	}
	who := strings.Join(names, " or ")
	return refusal.New(refusal.Denied, fmt.Sprintf("ask %s to do it for you", who),
		"%s may not %s in project %.100q: it takes the role %s, which %s can give", c.name(), rule.verb, project, joinRoles(rule.roles), who)
}

func (a *Access) deniedClosed(c Caller, rule rule) error {
	who := strings.Join(a.bosses(), " or ")
	return refusal.New(refusal.Denied, fmt.Sprintf("ask %s to do it for you", who),
		"%s may not %s now: roles can't be read until the root key is open, and until then only %s may", c.name(), rule.verb, who)
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

var errNoRole = errors.New("access: no such role")
