package daemon

import (
	"context"
	"errors"

	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// rights is who may do what, as far as that can be known.
func (d *Daemon) rights() *access.Access {
	if d.isOpen.Load() {
		return d.access
	}
	return access.Closed(d.self)
}

// mayAsk refuses what the caller may not do, and before the root key was ever open all that needs the catalog.
func (d *Daemon) mayAsk(r route, c *call) error {
	if !d.isOpen.Load() {
		c.recorded = r.action == access.StatusShow // it only looks, every few seconds
		if c.shut = !r.is(closed); c.shut {
			return notOpen()
		}
	}
	return d.rights().CheckKeys(c.ctx, c.caller, r.action, c.project, func(context.Context) ([]string, error) {
		keys, err := d.keysOf(r, c)
		var refused *refusal.Error
		if errors.As(err, &refused) {
			return nil, nil // why it can't be told is not for who has no right here
		}
		return keys, err
	})
}

// keysOf tells which keys a call is about. What names one is read once: the call goes on with the disk and the key that the grant was
// looked for, whatever the name stands for by then.
func (d *Daemon) keysOf(r route, c *call) ([]string, error) {
	switch {
	case c.http.PathValue("disk") != "":
		disk, key, err := d.volumes.KeyOf(c.ctx, c.project, c.disk())
		c.onlyDisk, c.onlyKey = disk, key
		return one(key), err
	case c.http.PathValue("snapshot") != "":
		p, err := d.volumes.Point(c.ctx, volume.SnapshotKind, c.project, c.snapshot())
		if err != nil || p.Key == nil {
			return nil, err
		}
		c.onlySnapshot, c.onlyKey = p.ID, p.Key.ID
		return one(p.Key.ID), nil
	case c.http.PathValue("image") != "":
		p, err := d.volumes.Point(c.ctx, volume.ImageKind, c.project, c.image())
		if err != nil || p.Key == nil {
			return nil, err
		}
		c.onlyImage, c.onlyKey = p.ID, p.Key.ID
		return one(p.Key.ID), nil
	case c.http.PathValue("key") != "":
		key, err := d.keys.Key(c.ctx, c.project, c.key())
		c.onlyKey = key.ID
		return one(key.ID), err
	case r.action == access.DiskCreate:
		key, err := d.keyOfNew(c)
		c.onlyKey = key
		return one(key), err
	}
	infos, err := d.keys.Keys(c.ctx, c.project)
	keys := make([]string, len(infos))
	for i, k := range infos {
		keys[i] = k.ID
	}
	return keys, err
}

func one(key string) []string {
	if key == "" {
		return nil
	}
	return []string{key}
}

// stillOnly refuses a key that the caller's grant is not for: the disk was moved under it since the grant was looked for.
func (c *call) stillOnly(key string) error {
	if c.onlyKey == "" || c.onlyKey == key {
		return nil
	}
	return refusal.New(refusal.Denied, "try again; who may is asked anew then", "the disk has another key now than a moment ago")
}

// sees makes a filter for lists: who has a role sees everything in the project, who has grants of keys sees what is under those.
func (d *Daemon) sees(c *call, action access.Action, op access.Operation) (func(key string) (bool, error), error) {
	err := d.access.Check(c.ctx, c.caller, action, c.project)
	if err == nil {
		return func(string) (bool, error) { return true, nil }, nil
	}
	if refusal.CodeOf(err) != refusal.Denied {
		return nil, err
	}
	known := map[string]bool{}
	return func(key string) (bool, error) {
		yes, is := known[key]
		if !is && key != "" {
			if yes, err = d.access.Granted(c.ctx, c.caller, c.project, op, key); err != nil {
				return false, err
			}
			known[key] = yes
		}
		return yes, nil
	}, nil
}

// seesAll tells whether a call is about the whole store: it names no project but default, and the caller sees what is in all of them.
func (d *Daemon) seesAll(c *call) (bool, error) {
	if c.project != control.DefaultProject {
		return false, nil
	}
	err := d.rights().Check(c.ctx, c.caller, access.StoreShow, c.project)
	if refusal.CodeOf(err) == refusal.Denied {
		return false, nil
	}
	return err == nil, err
}

// hold keeps a project from being deleted while something is put into it. The project is looked for under it.
func (d *Daemon) hold(r route) (release func()) {
	switch {
	case r.action == access.ProjectDelete:
		d.projects.Lock()
		return d.projects.Unlock
	case r.is(makes):
		d.projects.RLock()
		return d.projects.RUnlock
	}
	return func() {}
}
