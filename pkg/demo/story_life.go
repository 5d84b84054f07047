package demo

import (
	"context"
	"fmt"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// foresee asks what deleting the key would cost, before anything is done.
func foresee(ctx context.Context, t *tour) error {
	p, err := ask[control.Prediction](ctx, t, "key", "schedule-deletion", ownKey, "--days", "7", "--dry-run")
	if err != nil {
		return err
	}
	if len(p.Effects) != 1 || p.Date == nil {
		return fmt.Errorf("it foresees %+v", p)
	}
	e := p.Effects[0]
	return t.tell.all(
		check{e.Name == vault && e.Attach == "refused", "disk " + e.Name + " could not be attached any more; the key would be destroyed on " + p.Date.Format("2 January"), e},
		check{p.Undo != "", "until then this undoes it: " + p.Undo, p})
}

// schedule starts the deletion that was foreseen, and thinks better of it.
func schedule(ctx context.Context, t *tour) error {
	key, err := ask[control.Key](ctx, t, "key", "schedule-deletion", ownKey, "--days", "7", "--yes")
	if err != nil {
		return err
	}
	if err := t.tell.all(check{key.State == "Pending deletion", "key " + ownKey + " is " + key.State, key}); err != nil {
		return err
	}
	if err := t.refused(ctx, refusal.KeyForbids, "attach", vault); err != nil {
		return err
	}
	key, err = ask[control.Key](ctx, t, "key", "cancel-deletion", ownKey, "--enable")
	if err != nil {
		return err
	}
	return t.tell.all(check{key.State == "Enabled" && key.DeletionDate == nil, "cancelled: key " + ownKey + " is " + key.State, key})
}

// renew gives the key a new version, and puts the disk under it, which is attached.
func renew(ctx context.Context, t *tour) error {
	key, err := ask[control.Key](ctx, t, "key", "rotate", ownKey)
	if err != nil {
		return err
	}
	if err := t.tell.all(check{key.Version == 2, fmt.Sprintf("key %s has version %d; the disk goes on under version 1", ownKey, key.Version), key}); err != nil {
		return err
	}
	disk, err := ask[control.Disk](ctx, t, "disk", "rewrap", vault, "--key", ownKey)
	if err != nil {
		return err
	}
	return t.tell.all(check{disk.Status == "in-use", "the disk's key is wrapped anew, under version 2; the disk stays attached, its data as it was", disk})
}

// verify looks whether the log of all this is as it was written.
func verify(ctx context.Context, t *tour) error {
	v, err := ask[control.AuditVerified](ctx, t, "audit", "verify")
	if err != nil {
		return err
	}
	return t.tell.all(check{v.Records > 20, fmt.Sprintf("%d records, none of them changed, dropped or out of order", v.Records), v})
}
