package daemon

import (
	"time"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

func (d *Daemon) keyUpdate(c *call) (any, error) {
	var in control.KeyUpdate
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	k, err := d.keys.Update(c.ctx, c.request, c.project, c.http.PathValue("key"), keystore.Update(in))
	return keyView(k), err
}

// keySchedule sets the date at which a key is destroyed. What is at stake is said before it asks for a yes.
func (d *Daemon) keySchedule(c *call) (any, error) {
	var in control.KeySchedule
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	if err := keystore.CheckDeletionDays(in.Days); err != nil {
		return nil, err
	}
	if !c.yes() {
		k, err := d.keys.May(c.ctx, c.project, c.http.PathValue("key"), keystore.ScheduleDeletion)
		if err != nil {
			return nil, err
		}
		stakes, err := d.stakes(c, k)
		if err != nil {
			return nil, err
		}
		return nil, refusal.New(refusal.Confirm, "repeat it with --yes to do it; until that date `nbdcrypt key cancel-deletion` keeps the key",
			"key %s can't be used from now on, and is destroyed on %s, with which what is under it is lost for ever: %s",
			k.Alias, d.keys.DeletionDate(in.Days).UTC().Format(time.RFC3339), stakes)
	}
	k, err := d.keys.ScheduleDeletion(c.ctx, c.request, c.project, c.http.PathValue("key"), in.Days)
	return keyView(k), err
}

func (d *Daemon) keyCancel(c *call) (any, error) {
	var in control.KeyCancel
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	k, err := d.keys.CancelDeletion(c.ctx, c.request, c.project, c.http.PathValue("key"), in.Enable)
	if err == nil && in.Enable {
		d.keysBack()
	}
	return keyView(k), err
}

// keyDelete destroys a key whose date has come, and which the daemon did not destroy: the clock is doubted.
func (d *Daemon) keyDelete(c *call) (any, error) {
	k, err := d.keys.May(c.ctx, c.project, c.http.PathValue("key"), keystore.Delete)
	if err != nil {
		return nil, err
	}
	if !c.yes() {
		stakes, err := d.stakes(c, k)
		if err != nil {
			return nil, err
		}
		return nil, refusal.New(refusal.Confirm, "repeat it with --yes to do it; `nbdcrypt key cancel-deletion` keeps the key",
			"key %s is destroyed, with which what is under it is lost for ever: %s", k.Alias, stakes)
	}
	if err := d.canRecord(); err != nil {
		return nil, err
	}
	if _, err := d.keys.Delete(c.ctx, c.request, c.project, k.ID); err != nil {
		return nil, err
	}
	d.tellDeleted(k.Project, k.Alias, k.ID)
	return nil, nil
}
