package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/audit"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/clock"
	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/server"
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
	for _, step := range []func(context.Context) error{d.lockDirs, d.openHook, d.openRoot, d.openAttests} {
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
			d.volumes, d.servers, d.keys, d.raw, d.log = nil, nil, nil, nil, nil
			return err
		}
	}
	d.isOpen.Store(true)
	d.recordKept(ctx)
	d.tellFinished()
	d.goOn()
	d.lookAtDue(ctx)
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
	switch holder := d.root.Holder(); {
	case d.root.Made && holder != "":
		d.warn("the store is held by the key " + holder + ": without that token nothing here can ever be opened, and no slot can take its place; " +
			"back the token up now, as its vendor says")
	case d.root.Made:
		d.warn("a root key was made in " + d.o.RootKey + ": without it nothing here can ever be opened; copy it to a safe place now")
	}
	return d.explainSlots()
}

// explainSlots warns of slots that should have opened the root key by themselves. A root key file that is away may be meant to be.
func (d *Daemon) explainSlots() error {
	for _, failed := range d.root.Failed {
		d.warn(failed)
	}
	if d.root.Holder() != "" {
		return nil // its only slot was tried, and a token that hangs need not be waited for twice
	}
	slots, err := d.root.Slots()
	for _, s := range slots {
		if s.ID == keystore.KeyFileSlot && !s.Present && !s.Created.IsZero() {
			d.warn("the slot key-file could not be used at the start: " + s.Detail + "; put the root key file back from its backup")
		}
	}
	return err
}

// openCatalog opens the log and the catalog and holds each against the other.
func (d *Daemon) openCatalog(ctx context.Context) (err error) {
	replaced := ""
	if err := d.openLog(ctx, d.root.First); err != nil {
		if replaced, err = d.replaceLog(ctx, err); err != nil {
			return err
		}
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
	if replaced == "" {
		if err := d.log.CheckHead(ctx, sealed); err != nil {
			if replaced, err = d.replaceLog(ctx, err); err != nil {
				return err
			}
		}
	}
	revision, err := d.raw.Revision(ctx)
	if err != nil {
		return err
	}
	if replaced != "" {
		if err := d.recordReplaced(ctx, replaced, revision); err != nil {
			return err
		}
	}
	if _, err := d.log.Unrecorded(ctx, revision); err != nil {
		return err
	}
	d.catalog = audit.Witness(sealed, d.log)
	return d.log.KeepHead(ctx, newRequest(), d.catalog, replaced != "")
}

// openStores opens what stands on the catalog.
func (d *Daemon) openStores(ctx context.Context) (err error) {
	if d.clock, err = clock.NewGuard(ctx, d.catalog, d.o.Clock); err != nil {
		return err
	}
	d.access = access.New(d.catalog, d.self)
	d.keys, err = keystore.Open(ctx, keystore.Config{Catalog: d.catalog, Root: d.root, Region: d.o.Region, Clock: clock.Func(d.clock.Latest),
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
		Log: d.o.Log, Host: host, Instance: uuid.NewString(), Backups: d.o.Backups, Failed: d.syncFailed, Told: d.uncleanTold, Held: server.Held,
		Journal: filepath.Join(d.o.Run, journalDir, d.root.Store.String()), Unguarded: d.unguarded})
	if err != nil {
		return err
	}
	d.servers, err = server.Open(ctx, server.Config{Catalog: d.catalog, Volumes: d.volumes, Keys: d.keys, Clock: d.clock, Log: d.o.Log})
	return err
}

// journalDir is where journals lie in the run directory: of each store in a directory of its own, since another store may have been served there.
const journalDir = "journal"

// unguarded says that a killed daemon may cost answered writes.
func (d *Daemon) unguarded(why error) {
	d.warn(fmt.Sprintf("writes that are not flushed are not kept in a journal, and may be lost where the daemon is killed: %v", why))
}

// syncFailed records what the catalog has just kept, so that a crash after it does not look like a verb that was cut off.
func (d *Daemon) syncFailed(a *volume.Attachment, cause error) {
	d.recordOwn("disk.failed", a.Project, a.Disk.String(), refusal.New(refusal.Failed, "", "a sync failed: %w", cause))
}

// uncleanTold records the same of an attach that said what the attachment before it may have lost.
func (d *Daemon) uncleanTold(a *volume.Attachment) {
	d.recordOwn("disk.unclean", a.Project, a.Disk.String(), nil)
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
	for _, warning := range d.clockWarnings() {
		d.o.Log.Warn(warning)
	}
	if _, err := d.clock.Keep(ctx, newRequest()); err != nil {
		return err
	}
	lossy, recovered, err := d.volumes.LeftAttached(ctx)
	if err != nil {
		return err
	}
	for _, left := range []struct {
		names []string
		what  string
	}{{lossy, "what was not flushed may be lost"}, {recovered, "nothing that was answered is lost"}} {
		if len(left.names) > 0 {
			d.warn("the daemon before this one ended without detaching " + strings.Join(left.names, ", ") +
				": they are detached now, and " + left.what + "; attach them again to use them")
		}
	}
	for _, finished := range d.servers.Finished() {
		d.warn(finished)
	}
	d.warnUnreadable()
	_, err = d.log.Append(ctx, d.ownRecord("daemon.start"))
	return err
}

// fewWarnings are told one by one; where more is damaged a person has to run `check` anyhow.
const fewWarnings = 20

// warnUnreadable tells which records this start met and could not read. It goes on without them: what depends on one is refused.
func (d *Daemon) warnUnreadable() {
	list := slices.Concat(d.keys.Unreadable(), d.volumes.Unreadable(), d.servers.Unreadable())
	for i, err := range list {
		if i == fewWarnings {
			d.warn(fmt.Sprintf("%d more records can't be read; `nbdcrypt check` lists them", len(list)-i))
			return
		}
		d.warn(err.Error() + "; what depends on it is refused, and `nbdcrypt check` tells what still opens")
	}
}
