package volume

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/backup"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// Arrival is a backup on its way in.
type Arrival struct {
	s       *Service
	header  backup.Header
	project string
	public  ed25519.PublicKey
	file    *os.File
	free    func()

	verified backup.Verified
}

// Arrive begins to import the backup whose file begins with head, or goes on where a transfer before was cut off: have is how much of the
// body is here. public is the key that has to have signed it, empty for this store's own.
func (s *Service) Arrive(ctx context.Context, project string, head []byte, public ed25519.PublicKey) (a *Arrival, have int64, err error) {
	h, err := backup.DecodeHeader(head)
	if err != nil {
		return nil, 0, err
	}
	own, err := s.Keys.SigningKey(ctx)
	if err != nil {
		return nil, 0, err
	}
	if err := s.mayArrive(ctx, project, h, own, public); err != nil {
		return nil, 0, err
	}
	if len(public) == 0 {
		public = own
	}
	// Two transfers of one backup would write into one file.
	free, err := s.takePoint(pointRecord{Kind: BackupKind, ID: h.ID, Name: h.Name})
	if err != nil {
		return nil, 0, err
	}
	a = &Arrival{s: s, header: h, project: project, public: public, free: free}
	if have, err = a.open(head); err != nil {
		a.Close()
		return nil, 0, explainFull(err)
	}
	return a, have, nil
}

// mayArrive refuses what would be of no use here.
func (s *Service) mayArrive(ctx context.Context, project string, h backup.Header, own, public ed25519.PublicKey) error {
	foreign := h.Store != s.Keys.ID()
	switch {
	case foreign && len(public) == 0:
		return refusal.New(refusal.Usage, "get that store's public key (`nbdcrypt backup key` prints it there) by a way that you trust, and name it with --public-key",
			"the backup is of store %s, and which key signs there is not known here", h.Store)
	case !foreign && len(public) > 0 && !own.Equal(public):
		return refusal.New(refusal.Usage, "leave --public-key out", "the backup is of this store, which signs with another key")
	case !foreign && h.Encrypted && h.Project != project:
		return refusal.New(refusal.Usage, "repeat it with `--project "+h.Project+"`", "the backup is of project %s, and its key opens it there alone", h.Project)
	}
	if err := checkNameOf("a backup", h.Name); err != nil { // a name that is an id would never be found
		return refusal.New(refusal.Damaged, "get this backup from another copy", "the backup's name is none: %w", err)
	}
	return s.Catalog.View(ctx, func(r catalog.Reader) error { return isFree(r, project, h.Name, h.ID) })
}

// isFree refuses a backup that is here, in whatever project, and a name that another one has.
func isFree(r catalog.Reader, project, name string, id uuid.UUID) error {
	_, err := r.Get(pointKey(BackupKind, id))
	if err == nil {
		return refusal.New(refusal.Busy, "`nbdcrypt backup verify "+id.String()+"` tells whether it is whole", "backup %s (%s) is here already", id, name)
	}
	if err := ifThere(err); err != nil {
		return err
	}
	p, err := findPoint(r, BackupKind, project, name)
	switch {
	case refusal.CodeOf(err) == refusal.NotFound:
		return nil
	case err == nil && p.ID != id:
		return refusal.New(refusal.Busy, "delete that backup first, or import this one into another project if it is of a plain disk", "project %s has a backup %s already", project, name)
	}
	return err
}

// open opens what there is of the file already, if that is of the same backup.
func (a *Arrival) open(head []byte) (have int64, err error) {
	if err := a.s.backupDir(); err != nil {
		return 0, err
	}
	if a.file, err = os.OpenFile(a.s.backupPath(a.header.ID, arrivalSuffix), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return 0, err
	}
	info, err := a.file.Stat()
	if err != nil {
		return 0, err
	}
	// The header says of how many pages and how much data the body is: a file that begins otherwise is none that this one can go on from.
	there := make([]byte, len(head))
	if n, _ := a.file.ReadAt(there, 0); n == len(there) && bytes.Equal(there, head) {
		have = min(info.Size(), a.header.Body())
	}
	if err := a.file.Truncate(have); err != nil {
		return 0, err
	}
	return have, a.s.backupRoom(a.header.Length() - have)
}

// Length is how long the whole file will be.
func (a *Arrival) Length() int64 { return a.header.Length() }

// Name is what the backup is called.
func (a *Arrival) Name() string { return a.header.Name }

// ID is the backup's.
func (a *Arrival) ID() string { return a.header.ID.String() }

// Take writes what follows what is here. What was taken when it fails stays for the next try.
func (a *Arrival) Take(ctx context.Context, have int64, r io.Reader, progress func(done, total int64)) error {
	if _, err := a.file.Seek(have, io.SeekStart); err != nil {
		return err
	}
	buf := make([]byte, backup.ChunkSize)
	for have < a.Length() {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(r, buf[:min(int64(len(buf)), a.Length()-have)])
		if _, failed := a.file.Write(buf[:n]); failed != nil {
			return explainFull(failed)
		}
		have += int64(n)
		progress(have, a.Length())
		if err != nil {
			return refusal.New(refusal.Failed, "run the command again: it goes on where it was", "the transfer ended at byte %d of %d: %w", have, a.Length(), err)
		}
	}
	return nil
}

// Verify reads the whole file. One that is not whole does not stay.
func (a *Arrival) Verify(ctx context.Context, progress func(done, total int64)) (err error) {
	if _, err := a.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	a.verified, err = backup.Verify(ctx, a.file, a.public, progress)
	if err == nil && a.verified.Header != a.header {
		// What may come was asked of the header that came first: another backup's file may not come in its place.
		err = refusal.New(refusal.Damaged, "get this backup from another copy", "backup %s (%s) was offered, and what was sent is %s (%s)",
			a.header.Name, a.header.ID, a.verified.Name, a.verified.ID)
	}
	if refusal.CodeOf(err) == refusal.Damaged {
		err = errors.Join(err, os.Remove(a.file.Name()))
	}
	return err
}

// Keep has the backup that was verified be there.
func (a *Arrival) Keep(ctx context.Context, request string) (b Backup, err error) {
	p, deks, err := a.records(request, a.verified)
	if err != nil {
		return b, errors.Join(err, os.Remove(a.file.Name()))
	}
	if err := a.keep(ctx, request, p, deks); err != nil {
		return b, err
	}
	return a.s.describeBackup(ctx, p), nil
}

// keep puts the records there first: a file without them would stay unseen.
func (a *Arrival) keep(ctx context.Context, request string, p pointRecord, deks []keystore.Record) error {
	s := a.s
	whole := p
	p.Status = Creating
	err := s.update(ctx, request+"/intent", func(t catalog.Txn) error {
		if err := isFree(t, p.Project, p.Name, p.ID); err != nil {
			return err
		}
		for _, rec := range deks {
			if err := keystore.PutDEK(t, rec); err != nil {
				return err
			}
		}
		return errors.Join(put(t, p.key(), p), t.Put(p.nameKey(), []byte(p.ID.String())), t.Put(p.ofKey(), nil))
	})
	if err != nil {
		return err
	}
	if err = s.keepBackup(a.file, p.ID); err == nil {
		err = s.update(ctx, request, func(t catalog.Txn) error { return put(t, p.key(), whole) })
	}
	if err != nil && !errors.Is(err, catalog.ErrUnknownOutcome) {
		err = errors.Join(err, s.dropBackup(context.WithoutCancel(ctx), p))
	}
	return err
}

// records makes of a file that was verified what the catalog keeps of it.
func (a *Arrival) records(request string, v backup.Verified) (p pointRecord, deks []keystore.Record, err error) {
	p = pointRecord{Version: recordVersion, Kind: BackupKind, ID: v.ID, Name: v.Name, Project: a.project, Disk: v.Disk, DiskName: v.DiskName, Size: v.Size,
		SectorSize: v.SectorSize, Encrypted: v.Encrypted, Status: Available, Created: v.Taken, Request: request,
		Backup: &backupInfo{Store: v.Store, Public: a.public, Parent: v.Parent, Depth: v.Depth, Manifest: hex.EncodeToString(v.Manifest[:]),
			Data: v.Data, Length: v.Length(), Imported: true}}
	if !v.Encrypted || v.Store != a.s.Keys.ID() {
		return p, nil, nil
	}
	rec, err := keystore.CarriedDEK(v.Trailer.Record, a.project, p.holder(), p.fileLayer())
	if err != nil {
		return p, nil, fmt.Errorf("backup %s: %w", v.Name, err)
	}
	p.Key = rec.CMK.String()
	return p, []keystore.Record{rec}, nil
}

// Close ends the import, done or not.
func (a *Arrival) Close() {
	if a.file != nil {
		_ = a.file.Close() // what matters was synced
	}
	a.free()
}
