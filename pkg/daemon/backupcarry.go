package daemon

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/backup"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// backupExport gives out a backup's file: ciphertext with a wrapped key, or what a plain disk holds.
func (d *Daemon) backupExport(c *call) (any, error) {
	from, err := fromOf(c)
	if err != nil {
		return nil, err
	}
	file, start, err := d.volumes.ExportBackup(c.ctx, c.project, c.backup(), from)
	if err != nil {
		return nil, err
	}
	return &backupFile{d, file, start}, nil
}

func fromOf(c *call) (int64, error) {
	text := c.http.URL.Query().Get(control.QueryFrom)
	from, err := strconv.ParseInt(text, 10, 64)
	if text != "" && (err != nil || from < 0) {
		return 0, refusal.New(refusal.Usage, "send the number of bytes that are there", "%.40q is not a place in a file", text)
	}
	return from, nil
}

// backupFile is an answer that goes out piece by piece.
type backupFile struct {
	daemon *Daemon
	file   *volume.Carried
	start  int64
}

// ServeHTTP sends the file from where it was asked for. One that breaks off does so in a way that its reader sees: fewer bytes than were said.
func (b *backupFile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer b.file.Close()
	ctx, cancel := b.daemon.untilStop(r.Context())
	defer cancel()
	head := w.Header()
	head.Set("Content-Type", "application/octet-stream")
	head.Set(control.HeaderSize, strconv.FormatInt(b.file.Length, 10))
	head.Set(control.HeaderFrom, strconv.FormatInt(b.start, 10))
	head.Set("Content-Length", strconv.FormatInt(b.file.Length-b.start, 10))
	buf := make([]byte, backup.ChunkSize)
	for {
		n, err := io.ReadFull(b.file, buf)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) || ctx.Err() != nil {
			b.daemon.o.Log.Error("the export of a backup broke off", "err", errors.Join(err, ctx.Err()))
			panic(http.ErrAbortHandler)
		}
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(pieceTime))
		if _, err := w.Write(buf[:n]); err != nil {
			return // the reader has gone
		}
	}
}

// backupOffer tells how much of a backup is here already.
func (d *Daemon) backupOffer(c *call) (any, error) {
	var in control.BackupOffer
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	a, have, err := d.arrive(c, in.Header, in.Public)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	return control.BackupOffered{ID: a.ID(), Have: have}, nil
}

func (d *Daemon) arrive(c *call, head, public []byte) (*volume.Arrival, int64, error) {
	if len(public) != 0 && len(public) != ed25519.PublicKeySize {
		return nil, 0, refusal.New(refusal.Usage, "give the key that `nbdcrypt backup key` printed", "a public key of %d bytes is none of Ed25519", len(public))
	}
	a, have, err := d.volumes.Arrive(c.ctx, c.project, head, public)
	if err == nil {
		c.about = a.Name() + " " + a.ID()
	}
	return a, have, err
}

// backupImport takes a backup's file: its header, and what is not here of the rest. What was taken stays for the next try; once all is there a job
// verifies it, and then it counts. It holds the project for that last moment alone: all the rest takes long.
func (d *Daemon) backupImport(c *call) (any, error) {
	query := c.http.URL.Query()
	public, err := base64.StdEncoding.DecodeString(query.Get(control.QueryPublic))
	if err != nil {
		return nil, refusal.New(refusal.Usage, "send it in base64", "the public key is wrong: %w", err)
	}
	from, err := fromOf(c)
	if err != nil {
		return nil, err
	}
	a, err := d.takeBackup(c, public, from)
	if err != nil {
		return nil, err
	}
	job, err := d.startJob(c, control.Job{Verb: "backup import", Resource: a.Name(), Unit: "bytes"},
		func(ctx context.Context, progress func(done, total int64)) (any, error) {
			defer a.Close()
			if err := a.Verify(ctx, progress); err != nil {
				return nil, err
			}
			return d.keepBackup(c, a)
		})
	if err != nil {
		a.Close()
	}
	return job, err
}

// takeBackup reads what is sent.
func (d *Daemon) takeBackup(c *call, public []byte, from int64) (a *volume.Arrival, err error) {
	frames, done := d.frames(c, 2*backup.MaxSize)
	defer done()
	head := make([]byte, backup.HeaderSize)
	if _, err := io.ReadFull(frames, head); err != nil {
		return nil, refusal.New(refusal.CodeOf(err), "send a backup's header first", "the backup does not begin: %w", err)
	}
	a, have, err := d.arrive(c, head, public)
	if err != nil {
		return nil, err
	}
	if have != from {
		err = refusal.New(refusal.Busy, "run the command again", "%d bytes of backup %s are here, and it was sent from byte %d on", have, a.Name(), from)
	}
	if err == nil {
		err = a.Take(c.http.Context(), have, frames, func(int64, int64) {})
	}
	if err == nil {
		err = atEnd(frames)
	}
	if err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
}

// atEnd refuses what goes on behind a backup's end.
func atEnd(r io.Reader) error {
	n, err := io.ReadFull(r, make([]byte, 1))
	if n > 0 {
		return refusal.New(refusal.Damaged, "get this backup from another copy", "the file goes on after its end")
	}
	if !errors.Is(err, io.EOF) {
		return fmt.Errorf("daemon: the end of an import: %w", err)
	}
	return nil
}

// keepBackup puts a backup that was verified into its project, which may have gone meanwhile.
func (d *Daemon) keepBackup(c *call, a *volume.Arrival) (any, error) {
	d.projects.RLock()
	defer d.projects.RUnlock()
	if err := d.access.Check(context.WithoutCancel(c.ctx), c.caller, access.BackupImport, c.project); err != nil {
		return nil, err
	}
	b, err := a.Keep(context.WithoutCancel(c.ctx), c.request)
	return backupView(b), err
}

// diskRestore makes a disk of a backup, as a job. What the caller left open is as the backup has it.
func (d *Daemon) diskRestore(c *call, in control.DiskCreate) (any, error) {
	// A grant of a key lets its holder make disks under it, and not read what others had backed up.
	if err := d.access.Check(c.ctx, c.caller, access.BackupRestore, c.project); err != nil {
		return nil, err
	}
	spec := volume.Spec{Project: c.project, Name: in.Name, Size: in.Size, SectorSize: in.SectorSize, HideHoles: in.HideHoles, Shared: in.Shared}
	encrypted, key, err := d.volumes.RestoreAs(c.ctx, c.project, in.FromBackup)
	if err != nil {
		return nil, err
	}
	switch {
	case in.Encrypted == nil && in.Key == "" || in.Encrypted != nil && *in.Encrypted && in.Key == "" && encrypted:
		spec.Encrypted, spec.Key = encrypted, key
	default:
		if spec.Encrypted, spec.Key, err = d.choice(c, in); err != nil {
			return nil, err
		}
	}
	if err := roomForDisk(); err != nil {
		return nil, err
	}
	released := d.workOf(c, "disk create", in.Name, nil, nil).Released
	r, err := d.volumes.BeginRestore(c.ctx, c.request, in.FromBackup, spec, released)
	if err != nil {
		return nil, err
	}
	job, err := d.startJob(c, control.Job{Verb: "disk create", Resource: in.Name, Unit: "bytes"},
		func(ctx context.Context, progress func(done, total int64)) (any, error) {
			v, err := r.Run(ctx, c.request, progress)
			return d.diskView(v), err
		})
	if err != nil {
		err = errors.Join(err, r.Abandon(c.ctx))
	}
	return job, err
}
