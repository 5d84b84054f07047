package daemon

import (
	"context"
	"path/filepath"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/audit"
	"nbdcrypt/pkg/refusal"
)

func (d *Daemon) logPath() string { return filepath.Join(d.o.State, keystore.AuditFile) }

// openLog opens the audit log; create lets it be made.
func (d *Daemon) openLog(ctx context.Context, create bool) (err error) {
	d.log, err = audit.Open(ctx, audit.Config{Path: d.logPath(), Store: d.root.Store, Clock: d.o.Clock, Create: create, MAC: d.root.AuditMAC, HeadFailed: d.headFailed})
	return err
}

// replaceLog begins another log in the place of one that was tampered with, or spoiled by its disk, if who started the daemon has said so: else
// one bad bit of the log would keep every disk shut. It answers what was wrong and where the old log is.
func (d *Daemon) replaceLog(ctx context.Context, damage error) (replaced string, err error) {
	if !d.o.ReplaceAuditLog || refusal.CodeOf(damage) != refusal.Damaged {
		return "", damage
	}
	if d.log != nil {
		if err := d.log.Close(); err != nil {
			d.o.Log.Error("closing the damaged audit log", "err", err)
		}
	}
	aside, err := audit.SetAside(d.logPath(), d.o.Clock.Now())
	if err != nil {
		return "", err
	}
	if err := d.openLog(ctx, true); err != nil {
		return "", err
	}
	return refusal.From(damage).Message + "; the log so far is kept as " + filepath.Base(aside), nil
}

// recordReplaced is the first record of a log that replaces another.
func (d *Daemon) recordReplaced(ctx context.Context, why string, revision uint64) error {
	rec := d.ownRecord("audit.replaced")
	rec.Message, rec.Catalog = why, revision
	d.warn("the audit log was begun anew: " + why)
	_, err := d.log.Append(ctx, rec)
	return err
}
