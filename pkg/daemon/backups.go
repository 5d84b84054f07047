package daemon

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// backupView is a backup as the API shows it.
func backupView(b volume.Backup) control.Backup {
	view := control.Backup{ID: b.ID, Name: b.Name, Project: b.Project, Disk: control.BackupOf{ID: b.Disk, Name: b.DiskName}, Size: b.Size, SectorSize: b.SectorSize,
		Encrypted: b.Encrypted, Key: underKey(b.Key), Status: string(b.Status), Created: b.Created, Depth: b.Depth, Data: b.Data, Length: b.Length, Store: b.Store,
		Foreign: b.Foreign, Imported: b.Imported, Manifest: b.Manifest, PublicKey: base64.StdEncoding.EncodeToString(b.Public), Full: b.Full, Warnings: b.Warnings}
	if b.Parent != "" {
		view.Parent = &control.BackupOf{ID: b.Parent, Name: b.ParentName}
	}
	if b.Key != nil {
		if r := refusal.From(b.Key.May(keystore.Use)); r != nil {
			view.Warnings = append(view.Warnings, "it can be verified, and not restored: "+r.Message+"; "+r.Hint)
		}
	}
	return view
}

func backupViews(list []volume.Backup) []control.Backup {
	views := make([]control.Backup, len(list))
	for i, b := range list {
		views[i] = backupView(b)
	}
	return views
}

// backup is the backup that the path names.
func (c *call) backup() string { return c.http.PathValue("backup") }

// backupCreate makes a backup, as a job; what only the backup before it needed is given back after that.
func (d *Daemon) backupCreate(c *call) (any, error) {
	var in control.BackupCreate
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	v, err := d.volumes.Get(c.ctx, c.project, in.Disk)
	if err != nil {
		return nil, err
	}
	if v.Key != nil {
		c.keyID = v.Key.ID
	}
	if err := roomForDisk(); err != nil { // for the new layer, and to take back half of it
		return nil, err
	}
	spec := volume.BackupSpec{Project: c.project, Disk: v.ID, Name: in.Name, Full: in.Full}
	return d.startJob(c, control.Job{Verb: "backup create", Resource: in.Name + " " + v.Name, Unit: "bytes"},
		func(ctx context.Context, progress func(done, total int64)) (any, error) {
			b, err := d.volumes.CreateBackup(ctx, c.request, spec, d.workOf(c, "backup create", v.ID, progress, nil))
			d.tidySoon()
			return backupView(b), err
		})
}

func (d *Daemon) backupList(c *call) (any, error) {
	list, err := d.volumes.Backups(c.ctx, c.project, c.http.URL.Query().Get(control.QueryDisk))
	return backupViews(list), err
}

func (d *Daemon) backupShow(c *call) (any, error) {
	b, err := d.volumes.GetBackup(c.ctx, c.project, c.backup())
	return backupView(b), err
}

// backupVerify reads a backup and all that it stands on, as a job.
func (d *Daemon) backupVerify(c *call) (any, error) {
	b, err := d.volumes.GetBackup(c.ctx, c.project, c.backup())
	if err != nil {
		return nil, err
	}
	return d.startJob(c, control.Job{Verb: "backup verify", Resource: b.Name, Unit: "bytes"},
		func(ctx context.Context, progress func(done, total int64)) (any, error) {
			list, err := d.volumes.VerifyBackup(ctx, c.project, b.ID, progress)
			return control.BackupVerified{Backups: backupViews(list)}, err
		})
}

func (d *Daemon) backupDelete(c *call) (any, error) {
	b, err := d.volumes.GetBackup(c.ctx, c.project, c.backup())
	if err != nil {
		return nil, err
	}
	if !c.yes() {
		return nil, refusal.New(refusal.Confirm, "repeat it with --yes to do it", "backup %s will be deleted", toldOf(b))
	}
	err = d.volumes.DeleteBackup(c.ctx, c.project, b.ID)
	d.tidySoon()
	return nil, err
}

// toldOf says which backup a question is about.
func toldOf(b volume.Backup) string {
	return fmt.Sprintf("%s of disk %s, of %s", b.Name, b.DiskName, b.Created.Format(time.RFC3339))
}

// backupPrune deletes the older backups of a disk; what those that are kept stand on stays.
func (d *Daemon) backupPrune(c *call) (any, error) {
	var in control.BackupPrune
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	if in.Keep < 1 {
		return nil, refusal.New(refusal.Usage, "to keep none, delete them with `nbdcrypt backup delete`", "%d backups can't be kept", in.Keep)
	}
	list, err := d.volumes.ToPrune(c.ctx, c.project, in.Disk, in.Keep)
	if err != nil {
		return nil, err
	}
	var names, told []string
	for _, b := range list {
		names, told = append(names, b.Name), append(told, toldOf(b))
	}
	if len(list) > 0 && !c.yes() {
		return nil, refusal.New(refusal.Confirm, "repeat it with --yes to do it", "these backups will be deleted: %s", strings.Join(told, "; "))
	}
	c.about = strings.TrimSpace(in.Disk + " " + strings.Join(names, " "))
	for i, b := range list {
		if err := d.volumes.DeleteBackup(c.ctx, c.project, b.ID); err != nil {
			return nil, fmt.Errorf("%d of %d backups are deleted, then: %w", i, len(list), err)
		}
	}
	d.tidySoon()
	return control.BackupPruned{Deleted: backupViews(list)}, nil
}

// backupKey tells the public key: it shows nothing, and who checks a backup elsewhere needs it.
func (d *Daemon) backupKey(c *call) (any, error) {
	public, err := d.keys.SigningKey(c.ctx)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("daemon: the key of backups: %w", err)
	}
	return control.BackupKey{Store: d.keys.ID().String(), Algorithm: "Ed25519", PublicKey: base64.StdEncoding.EncodeToString(public),
		PEM: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))}, nil
}
