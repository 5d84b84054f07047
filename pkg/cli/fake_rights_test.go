package cli

import (
	"net/http"
	"slices"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// rights is what a fake knows of projects, roles and grants of keys.
type rights struct {
	projects []*control.Project
	roles    []control.Role
	grants   []control.KeyGrant
}

func (f *fake) rightsRoutes(handle func(string, func(*http.Request) (any, error))) {
	handle(control.RouteProjectCreate, func(r *http.Request) (any, error) {
		var in control.ProjectCreate
		if err := control.ReadJSON(r, &in); err != nil {
			return nil, err
		}
		made := moment0()
		p := &control.Project{Name: in.Name, By: "root", Created: &made}
		f.rights.projects = append(f.rights.projects, p)
		return p, nil
	})
	handle(control.RouteProjectList, func(*http.Request) (any, error) { return control.List(f.rights.projects), nil })
	handle(control.RouteProjectShow, func(r *http.Request) (any, error) { return f.project(r) })
	handle(control.RouteProjectSet, f.projectSet)
	handle(control.RouteProjectDelete, func(r *http.Request) (any, error) {
		p, err := f.project(r)
		if err != nil {
			return nil, err
		}
		if r.URL.Query().Get(control.QueryYes) != "true" {
			return nil, refusal.New(refusal.Confirm, "Confirm it.", "project %s will be deleted", p.Name)
		}
		f.rights.projects = slices.DeleteFunc(f.rights.projects, func(o *control.Project) bool { return o == p })
		return struct{}{}, nil
	})
	handle(control.RouteRoleGrant, f.roleGrant)
	handle(control.RouteRoleList, func(*http.Request) (any, error) { return control.List(f.rights.roles), nil })
	handle(control.RouteRoleRevoke, func(*http.Request) (any, error) { f.rights.roles = nil; return struct{}{}, nil })
	handle(control.RouteKeyGrant, f.keyGrant)
	handle(control.RouteKeyGrants, func(*http.Request) (any, error) { return control.List(f.rights.grants), nil })
	handle(control.RouteKeyGrantRevoke, func(*http.Request) (any, error) { f.rights.grants = nil; return struct{}{}, nil })
	handle(control.RouteKeyGrantRetire, func(*http.Request) (any, error) { f.rights.grants = nil; return struct{}{}, nil })
}

func (f *fake) project(r *http.Request) (*control.Project, error) {
	for _, p := range f.rights.projects {
		if p.Name == r.PathValue("project") {
			return p, nil
		}
	}
	return nil, refusal.New(refusal.NotFound, "`nbdcrypt project list` lists them.", "there is no project %q", r.PathValue("project"))
}

func (f *fake) projectSet(r *http.Request) (any, error) {
	p, err := f.project(r)
	var in control.ProjectSet
	if err == nil {
		err = control.ReadJSON(r, &in)
	}
	if err != nil {
		return nil, err
	}
	if in.EncryptByDefault != nil {
		p.EncryptByDefault = *in.EncryptByDefault
	}
	if in.DefaultKey != nil {
		k, err := f.key(*in.DefaultKey)
		if err != nil {
			return nil, err
		}
		p.DefaultKey = &control.DiskKey{ID: k.ID, Alias: k.Alias, State: k.State}
	}
	p.Warnings = nil
	if !p.Granted {
		p.Warnings = []string{"the key store's rights are not granted"}
	}
	return p, nil
}

func (f *fake) roleGrant(r *http.Request) (any, error) {
	var in control.RoleChange
	if err := control.ReadJSON(r, &in); err != nil {
		return nil, err
	}
	role := control.Role{User: in.User, UID: 1001, Project: r.URL.Query().Get(control.QueryProject), Role: in.Role}
	f.rights.roles = append(f.rights.roles, role)
	if len(f.rights.roles) > 1 {
		role.Warnings = []string{"alice is two things now"}
	}
	return role, nil
}

func (f *fake) keyGrant(r *http.Request) (any, error) {
	var in control.KeyGrantCreate
	if err := control.ReadJSON(r, &in); err != nil {
		return nil, err
	}
	k, err := f.key(r.PathValue("key"))
	if err != nil {
		return nil, err
	}
	g := control.KeyGrant{ID: f.id(), Key: k.ID, Project: k.Project, User: in.User, UID: 1001, Operation: in.Operation, By: "root", Created: moment0()}
	f.rights.grants = append(f.rights.grants, g)
	return g, nil
}
