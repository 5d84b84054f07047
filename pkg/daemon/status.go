package daemon

import (
	"os"
	"path/filepath"
	"time"

	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
	"nbdcrypt/pkg/shield"
)

// status tells how the daemon is. Everybody may ask, but which disks there are is for those who may list them: the keys
// in memory and the warnings name disks of every project.
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
	err = d.rights().Check(c.ctx, c.caller, access.DiskList, c.project)
	if err == nil {
		s.Warnings = append(s.Warnings, d.lastKey()...)
	}
	if c.http.URL.Query().Get(control.QueryKeys) == "true" {
		if err != nil {
			return nil, err
		}
		s.Keys = heldKeys(keys)
	}
	if err != nil {
		s.Warnings = []string{}
	}
	return s, nil
}

// countDisks fills in what is known once the catalog is open.
func (d *Daemon) countDisks(c *call, s *control.Status) (err error) {
	if s.Disks, err = d.volumes.Count(c.ctx); err != nil {
		return err
	}
	space, err := d.pool.Space()
	s.Attached, s.PoolFree = len(d.attachments()), space.Free
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

func (d *Daemon) allWarnings() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string{}, d.warnings...)
}

// heldKeys names the keys that are in memory now: what key memory holds, not what it should hold.
func heldKeys(list []secret.Held) []control.HeldKey {
	held := make([]control.HeldKey, len(list))
	for i, k := range list {
		held[i] = control.HeldKey{Kind: k.Kind, ID: k.ID, For: k.For, Since: k.Since}
	}
	return held
}
