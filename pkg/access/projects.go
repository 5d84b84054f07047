package access

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// Project is what disks, keys and rights belong to.
type Project struct {
	Name string
	// EncryptByDefault has a disk encrypted that is made without a word on it (rule C1).
	EncryptByDefault bool
	// DefaultKey is the id of the key that such a disk is under; empty for the Default Master Key.
	DefaultKey string
	// By and Created tell who made it; the project default was made by nobody.
	By      string
	Created time.Time
	// Damage is what is wrong with its record; then nothing but its name is known.
	Damage string
}

// projectRecord is a Project at project/NAME.
type projectRecord struct {
	Version          int       `json:"v"`
	Name             string    `json:"name"`
	EncryptByDefault bool      `json:"encrypt_by_default"`
	DefaultKey       string    `json:"default_key,omitempty"`
	By               string    `json:"by"`
	Created          time.Time `json:"created"`
}

func (p projectRecord) check(name string) error {
	if err := checkVersion(p.Version); err != nil {
		return err
	}
	if projectKey(p.Name) != name || !projectRule.MatchString(p.Name) {
		return fmt.Errorf("it is of project %q", p.Name)
	}
	return nil
}

func (p projectRecord) project() Project {
	return Project{Name: p.Name, EncryptByDefault: p.EncryptByDefault, DefaultKey: p.DefaultKey, By: p.By, Created: p.Created}
}

func (p Project) record() projectRecord {
	return projectRecord{recordVersion, p.Name, p.EncryptByDefault, p.DefaultKey, p.By, p.Created}
}

// projectRule keeps names fit for export names and URIs, where they stand before the disk's.
var projectRule = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$`)

const projectPrefix = "project/"

func projectKey(name string) string { return projectPrefix + name }

// there tells whether a project exists. One whose record is damaged does: its disks are there, and who has a role goes on.
func there(r catalog.Reader, name string) (bool, error) {
	if name == DefaultProject {
		return true, nil
	}
	if !projectRule.MatchString(name) {
		return false, nil
	}
	switch _, err := get[projectRecord](r, projectKey(name)); {
	case errors.Is(err, catalog.ErrNotFound):
		return false, nil
	case err == nil, errors.Is(err, catalog.ErrDamaged):
		return true, nil
	default:
		return false, err
	}
}

func noProject(name string) error {
	return refusal.New(refusal.NotFound, "`nbdcrypt project list` lists them, `nbdcrypt project create` makes one", "there is no project %.100q", name)
}

// readProject reads a project; the project default needs no record.
func readProject(r catalog.Reader, name string) (Project, error) {
	rec, err := get[projectRecord](r, projectKey(name))
	if errors.Is(err, catalog.ErrNotFound) && name == DefaultProject {
		return Project{Name: name}, nil
	}
	if errors.Is(err, catalog.ErrNotFound) {
		return Project{}, noProject(name)
	}
	return rec.project(), err
}

// Project tells about one project.
func (a *Access) Project(ctx context.Context, name string) (p Project, err error) {
	err = a.store.View(ctx, func(r catalog.Reader) (err error) {
		p, err = readProject(r, name)
		return err
	})
	return p, damaged(err)
}

// Projects lists the projects that a caller may see: those with a role for him, and for who sees the whole store all of them.
func (a *Access) Projects(ctx context.Context, c Caller) (list []Project, err error) {
	err = a.store.View(ctx, func(r catalog.Reader) error {
		first, err := readProject(r, DefaultProject)
		if errors.Is(err, catalog.ErrDamaged) {
			first, err = Project{Name: DefaultProject, Damage: err.Error()}, nil
		}
		if err != nil {
			return err
		}
		all := []Project{first}
		err = catalog.Walk(r, projectPrefix, func(p catalog.Pair, err error) error {
			name := p.Key[len(projectPrefix):]
			var rec projectRecord
			if err == nil {
				rec, err = parse[projectRecord](p.Key, p.Value)
			}
			found := rec.project()
			if err != nil {
				found = Project{Name: name, Damage: err.Error()}
			}
			if name != DefaultProject {
				all = append(all, found)
			}
			return nil
		})
		if err != nil {
			return err
		}
		list, err = a.visible(r, c, all)
		return err
	})
	return list, damaged(err)
}

func (a *Access) visible(r catalog.Reader, c Caller, all []Project) (list []Project, err error) {
	above, err := readRoles(r, roleKey(DefaultProject, c.UID))
	if err != nil && !a.boss(c) {
		return nil, err
	}
	if a.boss(c) || above.oversees() {
		return all, nil
	}
	for _, p := range all {
		rec, err := readRoles(r, roleKey(p.Name, c.UID))
		if err != nil {
			return nil, err
		}
		if len(rec.Roles) > 0 {
			list = append(list, p)
		}
	}
	return list, nil
}

// CreateProject makes a project. Who makes it administers its keys from then on; who holds every role needs none. Asked again with the
// same request it answers with what it made then.
func (a *Access) CreateProject(ctx context.Context, request string, by Caller, name string, now time.Time) (Project, error) {
	if !projectRule.MatchString(name) {
		return Project{}, refusal.New(refusal.Usage, "use 1 to 64 letters, digits, '.', '_' or '-', the first a letter or a digit",
			"%.100q can't be a project's name", name)
	}
	if done, err := a.store.Outcome(ctx, request); err == nil && done {
		if p, err := a.Project(ctx, name); err == nil {
			return p, nil
		}
	}
	p := Project{Name: name, By: by.name(), Created: now}
	err := catalog.Commit(ctx, a.store, request, func(t catalog.Txn) error {
		exists, err := there(t, name)
		if err != nil {
			return err
		}
		if exists {
			return refusal.New(refusal.Busy, "choose another name", "there is a project %s already", name)
		}
		if !a.boss(by) {
			rec := roleRecord{recordVersion, by.User, []Role{SecurityAdmin}}
			if err := put(t, roleKey(name, by.UID), rec); err != nil {
				return err
			}
		}
		return put(t, projectKey(name), p.record())
	})
	return p, damaged(err)
}

// SetProject changes a project's attributes.
func (a *Access) SetProject(ctx context.Context, request, name string, change func(*Project)) (p Project, err error) {
	err = catalog.Commit(ctx, a.store, request, func(t catalog.Txn) (err error) {
		if p, err = readProject(t, name); err != nil {
			return err
		}
		change(&p)
		return put(t, projectKey(name), p.record())
	})
	return p, damaged(err)
}

// rolesPerCommit is well below what a commit may change.
const rolesPerCommit = 32

// DeleteProject ends a project, and before it everybody's roles there, so that none comes to life in a later one of that name. Whether
// anything is left in it is the caller's to see to.
func (a *Access) DeleteProject(ctx context.Context, request, name string) error {
	if name == DefaultProject {
		return refusal.New(refusal.Busy, "delete what is in it instead", "the project %s is there always", name)
	}
	if _, err := a.Project(ctx, name); err != nil && !errors.Is(err, catalog.ErrDamaged) {
		return err
	}
	for n := 0; ; n++ {
		left := 0
		err := catalog.Commit(ctx, a.store, fmt.Sprintf("%s/roles/%d", request, n), func(t catalog.Txn) error {
			pairs, err := t.Scan(rolePrefix(name), "", rolesPerCommit)
			left = len(pairs)
			for _, p := range pairs {
				err = errors.Join(err, t.Delete(p.Key))
			}
			return err
		})
		if err != nil {
			return damaged(err)
		}
		if left < rolesPerCommit {
			break
		}
	}
	return damaged(catalog.Commit(ctx, a.store, request, func(t catalog.Txn) error { return t.Delete(projectKey(name)) }))
}
