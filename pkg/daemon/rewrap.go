package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// diskRewrap puts a disk under the newest version of a key. Whoever may because of a grant for the disk's key needs one for the new key
// too, to encrypt.
func (d *Daemon) diskRewrap(c *call) (any, error) {
	var in control.DiskRewrap
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	if in.Key == "" {
		return nil, refusal.New(refusal.Usage, "name a key; the disk's own means its newest version", "no key is named")
	}
	to, err := d.keys.Key(c.ctx, c.project, in.Key)
	if err == nil {
		err = d.mayEncrypt(c, to)
	}
	if err != nil {
		return nil, err
	}
	v, _, err := d.volumes.Rewrap(c.ctx, c.request, c.project, c.disk(), c.onlyKey, to.ID)
	if err != nil {
		return nil, err
	}
	return d.diskView(v), nil
}

// mayEncrypt refuses a key to a caller whom no role lets in, and no grant of that key.
func (d *Daemon) mayEncrypt(c *call, to keystore.Info) error {
	if c.onlyKey == "" {
		return nil
	}
	yes, err := d.access.Granted(c.ctx, c.caller, c.project, access.Encrypt, to.ID)
	if err == nil && !yes {
		err = refusal.New(refusal.Denied, "ask a security administrator to run `nbdcrypt key grant "+to.Alias+" "+c.caller.User+" encrypt --project "+c.project+"`",
			"%s may not put disks under key %s in project %s: it takes the role user, or a grant of that key to encrypt", c.caller.User, to.Alias, c.project)
	}
	return err
}

// keyRewrap puts all that is under a key under another, or its own newest version: a job, which can be stopped after each and begun again.
func (d *Daemon) keyRewrap(c *call) (any, error) {
	var in control.KeyRewrap
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	from, err := d.keys.May(c.ctx, c.project, c.key(), keystore.Use)
	if err != nil {
		return nil, err
	}
	to := from
	if in.To != "" {
		if to, err = d.keys.May(c.ctx, c.project, in.To, keystore.Use); err != nil {
			return nil, err
		}
	}
	uses, err := d.usesOf(c.ctx, c.project, from.ID)
	if err != nil {
		return nil, err
	}
	// A scaling configuration keeps no data: its system disk follows its image, and its data disks are made under the key that it names.
	uses = slices.DeleteFunc(uses, func(u control.KeyUse) bool { return u.Kind == configKind })
	return d.startJob(c, control.Job{Verb: "key rewrap", Resource: from.Alias, Unit: "uses"},
		func(ctx context.Context, progress func(done, total int64)) (any, error) {
			r := control.Rewrapped{Key: from.Alias, To: to.Alias, Version: to.Version, Uses: len(uses), Disks: disksAmong(uses), Failed: []control.RewrapFailed{}}
			err := d.rewrapAll(ctx, c, from, to, uses, &r, progress)
			if err == nil {
				r.Warnings, err = d.configsLeft(ctx, c.project, from, to)
			}
			return r, err
		})
}

// configsLeft says which scaling configurations go on making disks under a key: data disks, and system disks of an image that stayed under it.
func (d *Daemon) configsLeft(ctx context.Context, project string, from, to keystore.Info) (warnings []string, err error) {
	if from.ID == to.ID {
		return nil, nil
	}
	left, err := d.configUses(ctx, project, from.ID)
	for _, u := range left {
		warnings = append(warnings, fmt.Sprintf("scaling configuration %s names key %s still, and makes disks under it; a configuration never changes: `nbdcrypt scaling config create` makes another", u.Name, from.Alias))
	}
	return warnings, err
}

func disksAmong(uses []control.KeyUse) (n int) {
	for _, u := range uses {
		if u.Kind == volume.HolderKind {
			n++
		}
	}
	return n
}

// rewrapAll goes on past what can't be re-wrapped, unless nothing could. Each has a record of its own: it has another key then.
func (d *Daemon) rewrapAll(ctx context.Context, c *call, from, to keystore.Info, uses []control.KeyUse, r *control.Rewrapped, progress func(done, total int64)) error {
	for i, u := range uses {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		changed, err := d.rewrapOne(ctx, c, from, to, u)
		switch code := refusal.CodeOf(err); {
		case code == refusal.KeyForbids, code == refusal.Locked, code == refusal.Denied:
			return refusal.New(code, refusal.From(err).Hint, "%d of %d were looked at, then: %w", i, len(uses), err)
		case code == refusal.NotFound: // deleted meanwhile
		case err != nil:
			r.Failed = append(r.Failed, control.RewrapFailed{Kind: u.Kind, ID: u.ID, Name: u.Name, Error: control.ErrorOf(err)})
		case changed:
			r.Rewrapped++
		}
		progress(int64(i+1), int64(len(uses)))
	}
	return nil
}

func (d *Daemon) rewrapOne(ctx context.Context, c *call, from, to keystore.Info, u control.KeyUse) (changed bool, err error) {
	if u.Kind == volume.HolderKind {
		_, changed, err = d.volumes.Rewrap(ctx, newRequest(), c.project, u.ID, from.ID, to.ID)
	} else {
		changed, err = d.volumes.RewrapPoint(ctx, newRequest(), c.project, u.Kind, u.ID, from.ID, to.ID)
	}
	if errors.Is(err, volume.ErrMoved) {
		return false, nil // somebody else saw to it
	}
	if changed || err != nil {
		one := *c
		one.keyID = to.ID
		d.record(&one, u.Kind+" rewrap", u.ID, err)
	}
	return changed, err
}
