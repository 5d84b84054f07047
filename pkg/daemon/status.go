package daemon

import (
	"os"
	"path/filepath"
	"slices"
	"time"

	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
	"nbdcrypt/pkg/shield"
)

// status tells how the daemon is. Everybody may ask, but how many disks there are is for those who may list them. The keys in memory and
// the warnings name disks of every project, so that they are for who sees all of it.
func (d *Daemon) status(c *call) (any, error) {
	memory, keys := secret.Snapshot()
	shielded, err := shield.Look()
	if err != nil {
		return nil, err
	}
	s := control.Status{Version: d.o.Version, PID: os.Getpid(), Started: d.started, Region: d.o.Region, State: d.o.State,
		Pool: d.o.Pool, RootKey: d.o.RootKey, Control: filepath.Join(d.o.Run, control.SocketControl), NBD: d.nbdPath(), Listen: d.listens,
		Warnings: d.allWarnings(), Locked: d.root.Locked(), LockedSince: d.since(), Closed: !d.isOpen.Load(),
		KeyMemory:  control.Memory{Kind: memory.Kind, Used: int(memory.Used), Locked: int(memory.Locked), Limit: int(memory.Limit), Keys: memory.Keys},
		Protection: protection(shielded)}
	if !s.Closed {
		if err := d.countDisks(c, &s); err != nil {
			return nil, err
		}
	}
	all := d.rights().Check(c.ctx, c.caller, access.StoreShow, c.project)
	if all != nil {
		s.Warnings = []string{}
	}
	if c.flag(control.QueryKeys) {
		if all != nil {
			return nil, all
		}
		s.Keys = heldKeys(keys)
	}
	return s, nil
}

// countDisks fills in what is known once the catalog is open: of all projects, or of the one that the call is about.
func (d *Daemon) countDisks(c *call, s *control.Status) (err error) {
	space, err := d.pool.Space()
	if err != nil {
		return err
	}
	s.PoolFree = space.Free
	all, err := d.seesAll(c)
	if err != nil {
		return err
	}
	if all {
		s.Attached = len(d.attachments())
		s.Disks, err = d.volumes.Count(c.ctx)
		return err
	}
	if d.access.Check(c.ctx, c.caller, access.DiskList, c.project) != nil {
		return nil
	}
	s.Attached = len(d.attachedIn(c.project))
	s.Disks, err = d.volumes.CountIn(c.ctx, c.project)
	return err
}

// since is when the root key was locked; nil where it is open.
func (d *Daemon) since() *time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lockedSince.IsZero() {
		return nil
	}
	since := d.lockedSince
	return &since
}

// lastKey warns where the open root key could not be opened again: with this daemon the store would end.
func (d *Daemon) lastKey() []string {
	if d.root.Locked() {
		return nil
	}
	refused := refusal.From(d.root.Reopens())
	if refused == nil {
		return nil
	}
	return []string{"do not stop the daemon: " + refused.Message + "; " + refused.Hint}
}

// allWarnings are those that stay, then those of now.
func (d *Daemon) allWarnings() []string {
	d.mu.Lock()
	list := slices.Concat([]string{}, d.warnings, d.failing)
	d.mu.Unlock()
	if d.isOpen.Load() {
		list = slices.Concat(list, d.clockWarnings(), d.poolWarnings(), d.chores.warnings())
	}
	return append(list, d.lastKey()...)
}

// heldKeys names the keys that are in memory now: what key memory holds, not what it should hold.
func heldKeys(list []secret.Held) []control.HeldKey {
	held := make([]control.HeldKey, len(list))
	for i, k := range list {
		held[i] = control.HeldKey{Kind: k.Kind, ID: k.ID, For: k.For, Since: k.Since}
	}
	return held
}
