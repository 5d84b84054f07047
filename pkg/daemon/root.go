package daemon

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

// rootUnlock opens the root key without a person.
func (d *Daemon) rootUnlock(c *call) (any, error) {
	return d.unlock(c, d.root.UnlockAutomatic)
}

// rootPassphrase opens it by a passphrase.
func (d *Daemon) rootPassphrase(c *call) (any, error) {
	return d.unlockGiven(c, d.root.UnlockPassphrase)
}

// unlockGiven opens it by what a person gives, which is not even asked for where it is open.
func (d *Daemon) unlockGiven(c *call, by func(context.Context, *secret.Key) (keystore.SlotInfo, error)) (any, error) {
	if d.isOpen.Load() && !d.root.Locked() {
		return d.rootState(false, ""), nil
	}
	var state any
	err := d.withPassphrase(c, "unlocking the root key", func(ctx context.Context, given *secret.Key) (err error) {
		state, err = d.unlock(c, func(context.Context) (string, error) {
			slot, err := by(ctx, given)
			return slot.ID, err
		})
		return err
	})
	return state, err
}

// unlock opens the root key by a slot, and after a start without it the rest of the daemon. One that fails leaves no key that was not there before.
func (d *Daemon) unlock(c *call, by func(context.Context) (slot string, err error)) (any, error) {
	d.opening.Lock()
	defer d.opening.Unlock()
	if d.isOpen.Load() && !d.root.Locked() {
		return d.rootState(false, ""), nil
	}
	ctx, cancel := d.untilStop(c.ctx)
	defer cancel()
	slot, err := d.openAll(ctx, by)
	if err != nil {
		return nil, err
	}
	c.slot = slot
	d.setLocked(time.Time{})
	d.tellManager()
	d.o.Log.Info("the root key is unlocked", "slot", slot, "by", c.caller.User)
	d.keysBack()
	return d.rootState(true, slot), nil
}

func (d *Daemon) openAll(ctx context.Context, by func(context.Context) (string, error)) (slot string, err error) {
	if ctx.Err() != nil {
		return "", errStopping()
	}
	if d.root.Locked() {
		if slot, err = by(ctx); err != nil {
			return "", err
		}
	}
	if !d.isOpen.Load() {
		if err := d.openRest(ctx); err != nil {
			d.root.Close()
			return "", err
		}
	}
	return slot, nil
}

// rootLock wipes the root key. What is attached goes on: its keys lie in memory for themselves.
func (d *Daemon) rootLock(c *call) (any, error) {
	d.opening.Lock()
	defer d.opening.Unlock()
	if d.root.Locked() {
		return d.rootState(false, ""), nil
	}
	if err := d.root.Lock(); err != nil {
		return nil, err
	}
	d.setLocked(time.Now().UTC().Truncate(time.Second))
	d.tellManager()
	d.o.Log.Info("the root key is locked", "by", c.caller.User)
	return d.rootState(true, ""), nil
}

// setLocked notes since when the root key is locked, for `status`; zero where it is open.
func (d *Daemon) setLocked(since time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lockedSince = since
}

// tellManager tells the service manager whether the root key is locked.
func (d *Daemon) tellManager() {
	if _, err := daemon.SdNotify(false, "STATUS="+d.statusLine()); err != nil {
		d.o.Log.Warn("the service manager could not be told", "err", err)
	}
}

// statusLine is what the service manager shows.
func (d *Daemon) statusLine() string {
	switch {
	case !d.root.Locked():
		return ""
	case d.isOpen.Load():
		return "the root key is locked: attached disks go on, `nbdcrypt root unlock` lets encrypted disks be attached again"
	}
	return "locked: `nbdcrypt root unlock` opens the store"
}

// notOpen refuses what needs the catalog before the root key was ever open.
func notOpen() error {
	return refusal.New(refusal.Locked, "run `nbdcrypt root unlock`", "the store is locked: its root key was not open since the daemon started")
}

func errStopping() error {
	return refusal.New(refusal.Unreachable, "ask again once it runs", "the daemon is shutting down")
}

// rootState is how the root key is after a call; by is the slot that opened it in that call.
func (d *Daemon) rootState(changed bool, by string) control.RootState {
	s := control.RootState{Locked: d.root.Locked(), Changed: changed, Attached: len(d.attachments())}
	slots, err := d.root.Slots()
	if err != nil {
		d.o.Log.Error("listing the slots of the root key", "err", err)
	}
	for _, slot := range slots {
		v := slotView(slot)
		s.Slots = append(s.Slots, v)
		if v.ID == by {
			s.Slot = &v
		}
	}
	return s
}

func slotView(s keystore.SlotInfo) control.Slot {
	v := control.Slot{ID: s.ID, Kind: s.Kind, Name: s.Name, Detail: s.Detail, Automatic: s.Automatic, Present: s.Present}
	if !s.Created.IsZero() {
		v.Created = &s.Created
	}
	return v
}

func (d *Daemon) slotList(*call) (any, error) {
	slots, err := d.root.Slots()
	list := []control.Slot{}
	for _, slot := range slots {
		list = append(list, slotView(slot))
	}
	return list, err
}

func (d *Daemon) slotAdd(c *call) (any, error) {
	if err := d.needOpenFor("a slot can't be added"); err != nil {
		return nil, err
	}
	var slot keystore.SlotInfo
	err := d.withPassphrase(c, "adding a slot", func(ctx context.Context, passphrase *secret.Key) (err error) {
		slot, err = d.root.AddPassphrase(ctx, c.http.URL.Query().Get(control.QueryName), passphrase)
		return err
	})
	return slotView(slot), err
}

func (d *Daemon) slotRemove(c *call) (any, error) {
	if err := d.needOpenFor("a slot can't be removed"); err != nil {
		return nil, err
	}
	slot, err := d.slot(c.http.PathValue("slot"))
	if err != nil {
		return nil, err
	}
	if slot.Kind == keystore.KeyFileSlot {
		slot.Detail = d.o.RootKey // also where the file is damaged, which the detail says then
	}
	ctx, cancel := d.untilStop(c.ctx)
	defer cancel()
	if !c.yes() {
		words, err := d.lastWords(ctx, slot)
		if err != nil {
			return nil, err
		}
		return nil, refusal.New(refusal.Confirm, "repeat it with --yes to do it", "%s", words)
	}
	return slotView(slot), d.root.RemoveSlot(ctx, slot.ID)
}

// lastWords says what removing a slot does, and what it does not.
func (d *Daemon) lastWords(ctx context.Context, slot keystore.SlotInfo) (string, error) {
	start := ""
	if slot.Automatic && slot.Present {
		other, err := d.root.OtherAutomatic(ctx, slot.ID)
		if err != nil {
			return "", err
		}
		if !other {
			start = "it is the last one that opens the root key without anybody, so that the daemon starts locked from then on; "
		}
	}
	if slot.Kind == keystore.KeyFileSlot {
		return fmt.Sprintf("the root key file %s will be wiped and removed; %severy copy of the file still opens "+
			"this store, and older copies of the state directory too", slot.Detail, start), nil
	}
	return fmt.Sprintf("slot %s (%s) will not open the root key any more; %sin an older copy of the state directory it still does, and the root key "+
		"that it opens there is the one in use", slot.Name, slot.ID, start), nil
}

// slot finds a slot by its id or its name.
func (d *Daemon) slot(ref string) (slot keystore.SlotInfo, err error) {
	slots, err := d.root.Slots()
	if err != nil {
		return slot, err
	}
	found := 0
	for _, s := range slots {
		if s.ID == ref {
			return s, nil
		}
		if s.Name == ref {
			slot = s
			found++
		}
	}
	switch found {
	case 1:
		return slot, nil
	case 0:
		return slot, refusal.New(refusal.NotFound, "`nbdcrypt root slot list` lists them", "there is no slot %.100q", ref)
	}
	return slot, refusal.New(refusal.Usage, "name it by its id, which `nbdcrypt root slot list` shows", "%d slots are called %.100q", found, ref)
}

// withPassphrase reads the passphrase that follows a call, and tries it when its turn has come.
func (d *Daemon) withPassphrase(c *call, why string, try func(context.Context, *secret.Key) error) error {
	leave, err := d.guesses.enter(c.caller.UID)
	if err != nil {
		return err
	}
	defer leave()
	passphrase, err := readPassphrase(c, why)
	if err != nil {
		return err
	}
	defer passphrase.Destroy()
	ctx, cancel := d.untilStop(c.ctx)
	defer cancel()
	return d.guesses.try(ctx, c.caller.UID, func() error { return try(ctx, passphrase) })
}

func readPassphrase(c *call, why string) (passphrase *secret.Key, err error) {
	err = c.asker.Passphrase(func(length int) (room []byte, err error) {
		passphrase, err = secret.Work(length, secret.Purpose{Kind: "passphrase", For: why})
		if err != nil {
			return nil, fmt.Errorf("daemon: a passphrase: %w", err)
		}
		return passphrase.Bytes(), nil
	})
	if err != nil && passphrase != nil {
		passphrase.Destroy()
	}
	return passphrase, err
}
