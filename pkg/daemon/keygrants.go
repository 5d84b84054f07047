package daemon

import (
	"fmt"

	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

func keyGrantView(g access.KeyGrant) control.KeyGrant {
	return control.KeyGrant{ID: g.ID, Key: g.Key, Project: g.Project, User: g.User, UID: g.UID, Operation: string(g.Operation), By: g.By, Created: g.Created}
}

// keyGrant lets a user do one thing with one key (rule B8).
func (d *Daemon) keyGrant(c *call) (any, error) {
	var in control.KeyGrantCreate
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	c.about = cut(in.User) + " " + cut(in.Operation)
	key, err := d.keys.Key(c.ctx, c.project, c.key())
	if err != nil {
		return nil, err
	}
	uid, err := access.ParseUser(in.User)
	if err != nil {
		return nil, err
	}
	g, both, err := d.access.GrantKey(c.ctx, c.request, c.caller, access.KeyGrant{Key: key.ID, Project: c.project, UID: uid, User: d.callerOf(uid).User,
		Operation: access.Operation(in.Operation), By: c.caller.User, Created: d.clock.Now()})
	if err != nil {
		return nil, err
	}
	c.about += " " + g.ID
	v := keyGrantView(g)
	if both {
		v.Warnings = []string{fmt.Sprintf("%s administers the keys of project %s and uses data under this one now, which are kept apart else: "+
			"`nbdcrypt key revoke %s %s --project %s` takes it back", g.User, g.Project, key.Alias, g.ID, g.Project)}
	}
	return v, nil
}

// keyGrantList shows the grants of a key: all of them to who may list them, else the caller's own.
func (d *Daemon) keyGrantList(c *call) (any, error) {
	key, err := d.keys.Key(c.ctx, c.project, c.key())
	if err != nil {
		return nil, err
	}
	err = d.access.Check(c.ctx, c.caller, access.KeyGrantList, c.project)
	if err != nil && refusal.CodeOf(err) != refusal.Denied {
		return nil, err
	}
	all := err == nil
	list, err := d.access.KeyGrants(c.ctx, c.project, key.ID)
	views := []control.KeyGrant{}
	for _, g := range list {
		if all || g.UID == c.caller.UID {
			views = append(views, keyGrantView(g))
		}
	}
	return views, err
}

func (d *Daemon) keyGrantRevoke(c *call) (any, error) {
	key, grant, err := d.readKeyGrant(c)
	if err != nil {
		return nil, err
	}
	return nil, d.access.RevokeKey(c.ctx, c.request, c.project, key, grant)
}

func (d *Daemon) keyGrantRetire(c *call) (any, error) {
	key, grant, err := d.readKeyGrant(c)
	if err != nil {
		return nil, err
	}
	return nil, d.access.RetireKey(c.ctx, c.request, c.caller, c.project, key, grant)
}

// readKeyGrant reads which grant of which key a call is about.
func (d *Daemon) readKeyGrant(c *call) (key, grant string, err error) {
	var in control.KeyGrantEnd
	if err := control.ReadJSON(c.http, &in); err != nil {
		return "", "", err
	}
	c.about = cut(in.Grant)
	k, err := d.keys.Key(c.ctx, c.project, c.key())
	return k.ID, in.Grant, err
}
