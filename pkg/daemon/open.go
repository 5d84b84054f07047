package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/audit"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/clock"
	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
	"nbdcrypt/xts"
)

// open opens the state directory from the bottom up. Whatever is damaged or not ours is refused before it is changed.
func (d *Daemon) open(ctx context.Context) error {
	if err := xts.SelfTest(); err != nil {
		return refusal.New(refusal.Failed, "do not use this build; it would write what nothing can read", "the self-test of the cipher failed: %w", err)
	}
	if err := d.protect(); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{d.lockDirs, d.openRoot, d.openAttests} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if d.root.Locked() {
		d.setLocked(d.started)
		return nil // a person opens the rest
	}
	return d.openRest(ctx)
}

// openRest opens what lies under the root key. Where that fails nothing of it is open, and it may be tried again.
func (d *Daemon) openRest(ctx context.Context) error {
	for _, step := range []func(context.Context) error{d.openCatalog, d.openStores, d.greet} {
		if err := step(ctx); err != nil {
			d.closeRest()
			d.volumes, d.keys, d.raw, d.log = nil, nil, nil, nil
			return err
		}
	}
	d.isOpen.Store(true)
	d.recordKept(ctx)
	return nil
}

// lockDirs makes the directories and keeps other daemons away from them.
func (d *Daemon) lockDirs(context.Context) error {
	if err := privateDir(d.o.State); err != nil {
		return err
	}
	if err := publicDir(d.o.Run); err != nil {
		return err
	}
	for _, dir := range []struct{ path, file, what string }{
		{d.o.State, "lock", "the state directory"}, {d.o.Run, runLock, "the run directory"},
	} {
		l, err := lockDir(dir.path, dir.file, dir.what, holderLine(d.o, d.started))
		if err != nil {
			return err
		}
		d.locks = append(d.locks, l)
	}
	return nil
}

func (d *Daemon) openRoot(context.Context) (err error) {
	if d.root, err = keystore.OpenRoot(d.o.RootKey, d.o.State); err != nil {
		return err
	}
	if d.root.Made {
		d.warn("a root key was made in " + d.o.RootKey + ": without it nothing here can ever be opened; copy it to a safe place now")
	}
	if d.root.Locked() {
		return d.explainLocked()
	}
	return nil
}

// explainLocked warns where the root key file is there and opens nothing: one that is away may be meant to be.
func (d *Daemon) explainLocked() error {
	slots, err := d.root.Slots()
	for _, s := range slots {
		if s.ID == keystore.KeyFileSlot && !s.Created.IsZero() {
			d.warn("the slot key-file could not be used at the start: " + s.Detail + "; put the root key file back from its backup")
		}
	}
	return err
}

// openCatalog opens the log and the catalog and holds each against the other.
func (d *Daemon) openCatalog(ctx context.Context) (err error) {
	d.log, err = audit.Open(ctx, audit.Config{Path: filepath.Join(d.o.State, keystore.AuditFile), Store: d.root.Store,
		Clock: clock.System{}, Create: d.root.First})
	if err != nil {
		return err
	}
	d.raw, err = catalog.Open(filepath.Join(d.o.State, keystore.CatalogDir), catalog.Options{
		MinRevision: d.log.Revision(), Create: d.root.First, Check: keystore.CheckSealed(d.root), Log: d.o.Log})
	if errors.Is(err, catalog.ErrDamaged) {
		return refusal.New(refusal.Damaged, "restore the state directory from a backup; nothing in it was changed", "%w", err)
	}
	if err != nil {
		return err
	}
	sealed := keystore.Seal(d.raw, d.root)
	if err := d.log.CheckHead(ctx, sealed); err != nil {
		return err
	}
	revision, err := d.raw.Revision(ctx)
	if err != nil {
		return err
	}
	if _, err := d.log.Unrecorded(ctx, revision); err != nil {
		return err
	}
	d.catalog = audit.Witness(sealed, d.log)
	return nil
}

// openStores opens what stands on the catalog.
func (d *Daemon) openStores(ctx context.Context) (err error) {
	if d.clock, err = clock.NewGuard(ctx, d.catalog, clock.System{}); err != nil {
		return err
	}
	d.access = access.New(d.catalog, d.self)
	d.keys, err = keystore.Open(ctx, keystore.Config{Catalog: d.catalog, Root: d.root, Region: d.o.Region, Clock: d.clock,
		Administrators: d.administrators})
	if err != nil {
		return err
	}
	if d.pool, err = pool.OpenFiles(d.o.Pool); err != nil {
		return cantMake(d.o.Pool, "--pool", err)
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	d.volumes, err = volume.Open(ctx, volume.Config{Catalog: d.catalog, Keys: d.keys, Pool: d.pool, Clock: d.clock,
		Log: d.o.Log, Host: host, Instance: uuid.NewString()})
	return err
}

// administrators names who can grant, for refusals; one that can't be looked up is left out.
func (d *Daemon) administrators(project string) []string {
	names, err := d.access.Administrators(context.Background(), project)
	if err != nil {
		d.o.Log.Error("looking up administrators", "err", err)
	}
	return names
}

// greet does what every start does once all is open: it records itself, and says what a person should know.
func (d *Daemon) greet(ctx context.Context) error {
	if behind, yes := d.clock.Behind(); yes {
		d.warn(fmt.Sprintf("the clock is %v behind a time that was seen before; set it right", behind))
	}
	if _, err := d.clock.Keep(ctx, newRequest()); err != nil {
		return err
	}
	left, err := d.volumes.LeftAttached(ctx)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		d.warn("the daemon before this one ended without detaching " + strings.Join(left, ", ") +
			": they are detached now, and what was not flushed may be lost; attach them again to use them")
	}
	_, err = d.log.Append(ctx, d.ownRecord("daemon.start"))
	return err
}
