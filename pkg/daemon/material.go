package daemon

import (
	"context"
	"errors"
	"fmt"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// keyRotate adds a version to a key.
func (d *Daemon) keyRotate(c *call) (any, error) {
	k, err := d.keys.RotateKey(c.ctx, c.request, c.project, c.key())
	if err != nil {
		return nil, err
	}
	d.tellRotated(k)
	return keyView(k), nil
}

func (d *Daemon) keyRotation(c *call) (any, error) {
	var in control.KeyRotation
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	k, err := d.keys.SetRotation(c.ctx, c.request, c.project, c.key(), in.Days)
	return keyView(k), err
}

// rotateDue rotates a key whose days are over. While the root key is locked that waits.
func (d *Daemon) rotateDue(ctx context.Context, due keystore.Due) error {
	if d.root.Locked() {
		return nil
	}
	k, err := d.keys.RotateKey(ctx, newRequest(), due.Project, due.ID)
	if code := refusal.CodeOf(err); code == refusal.NotFound || code == refusal.KeyForbids {
		return nil // a person was faster, or it is for a daemon of another region
	}
	d.recordOwn("key.rotated", due.Project, due.ID, err)
	if err == nil {
		d.tellRotated(k)
	}
	return err
}

func (d *Daemon) tellRotated(k keystore.Info) {
	d.notify(event{Event: eventKeyRotated, Project: k.Project, Key: k.Alias, KeyID: k.ID,
		Message: fmt.Sprintf("key %s of project %s is rotated: new disks are under its version %d", k.Alias, k.Project, k.Version)})
}

// expireDue deletes key material whose time has come. That waits while it could not be recorded.
func (d *Daemon) expireDue(ctx context.Context, due keystore.Due) error {
	if err := d.canRecord(); err != nil {
		return err
	}
	_, err := d.keys.ExpireDue(ctx, newRequest(), due)
	if errors.Is(err, catalog.ErrNotFound) || refusal.CodeOf(err) == refusal.KeyForbids {
		return nil // a person was faster
	}
	d.recordOwn("key.expired", due.Project, due.ID, err)
	if err == nil {
		d.tellExpired(due)
	}
	return err
}

func (d *Daemon) tellExpired(due keystore.Due) {
	d.notify(event{Event: eventMaterialExpired, Project: due.Project, Key: due.Alias, KeyID: due.ID,
		Message: fmt.Sprintf("the key material of key %s of project %s has expired and is deleted: what is under it can't be attached until it is imported again",
			due.Alias, due.Project)})
}

// keyPrepare makes what key material is wrapped with and comes with.
func (d *Daemon) keyPrepare(c *call) (any, error) {
	p, k, err := d.keys.PrepareImport(c.ctx, c.project, c.key())
	if err != nil {
		return nil, err
	}
	return control.ImportParameters{Key: keyView(k), WrappingKey: string(p.WrappingKey), Token: string(p.Token), Until: p.Until}, nil
}

func (d *Daemon) keyImport(c *call) (any, error) {
	var in control.KeyImport
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	k, err := d.keys.ImportMaterial(c.ctx, c.request, c.project, c.key(),
		keystore.Material{Token: []byte(in.Token), Wrapped: in.Material, Expires: in.Expires})
	if err == nil {
		d.keysBack()
	}
	return keyView(k), err
}

// keyDeleteMaterial destroys imported key material at once. What is at stake is said before it asks for a yes.
func (d *Daemon) keyDeleteMaterial(c *call) (any, error) {
	if !c.yes() {
		k, err := d.keys.May(c.ctx, c.project, c.key(), keystore.DeleteMaterial)
		if err != nil {
			return nil, err
		}
		stakes, err := d.stakes(c, k)
		if err != nil {
			return nil, err
		}
		return nil, refusal.New(refusal.Confirm, "repeat it with --yes to do it, if whoever has the key material still has it",
			"the key material of key %s is destroyed here at once, and only importing the same bytes makes what is under it readable again: %s", k.Alias, stakes)
	}
	k, err := d.keys.DeleteMaterial(c.ctx, c.request, c.project, c.key())
	return keyView(k), err
}
