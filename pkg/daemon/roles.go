package daemon

import (
	"fmt"

	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/control"
)

// readRole reads which role of whom a call is about.
func (d *Daemon) readRole(c *call) (access.Holding, error) {
	var in control.RoleChange
	if err := control.ReadJSON(c.http, &in); err != nil {
		return access.Holding{}, err
	}
	c.about = cut(in.User) + " " + cut(in.Role)
	uid, err := access.ParseUser(in.User)
	if err != nil {
		return access.Holding{}, err
	}
	return access.Holding{UID: uid, User: d.callerOf(uid).User, Project: c.project, Role: access.Role(in.Role)}, nil
}

func roleView(h access.Holding) control.Role {
	return control.Role{User: h.User, UID: h.UID, Project: h.Project, Role: string(h.Role)}
}

func (d *Daemon) roleGrant(c *call) (any, error) {
	h, err := d.readRole(c)
	if err != nil {
		return nil, err
	}
	both, err := d.access.Grant(c.ctx, c.request, c.caller, h)
	v := roleView(h)
	if both {
		v.Warnings = []string{fmt.Sprintf("%s administers the keys of project %s and uses its data now, which are kept apart else: "+
			"`nbdcrypt role revoke %s %s --project %s` takes this one back", h.User, h.Project, h.User, h.Role, h.Project)}
	}
	return v, err
}

func (d *Daemon) roleRevoke(c *call) (any, error) {
	h, err := d.readRole(c)
	if err != nil {
		return nil, err
	}
	return nil, d.access.Revoke(c.ctx, c.request, h)
}

func (d *Daemon) roleList(c *call) (any, error) {
	list, err := d.access.List(c.ctx, c.project)
	views := make([]control.Role, len(list))
	for i, h := range list {
		views[i] = roleView(h)
	}
	return views, err
}
