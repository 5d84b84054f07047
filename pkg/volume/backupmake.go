package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/backup"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// BackupSpec says what backup is to be made.
type BackupSpec struct {
	Project, Disk, Name string
	// Full has all of the disk be in it, though a backup before it has a part.
	Full bool
}

// CreateBackup makes a backup of a disk, attached or not: the disk is frozen as it is now, its I/O goes on, and what it was is written to a file. Cut off or
// failed, it leaves nothing behind.
func (s *Service) CreateBackup(ctx context.Context, request string, spec BackupSpec, w Work) (Backup, error) {
	if err := CheckName(spec.Name); err != nil {
		return Backup{}, err
	}
	d, err := s.claimNow(ctx, spec.Project, spec.Disk, toBackUp)
	if err != nil {
		return Backup{}, err
	}
	defer s.release(d)
	m := &backingUp{s: s, disk: d, work: w}
	p, err := m.run(ctx, request, spec)
	if err != nil {
		return Backup{}, explain(d.Name, err)
	}
	b := s.describeBackup(context.WithoutCancel(ctx), p)
	b.Full, b.Warnings = m.full, append(b.Warnings, m.warnings...)
	return b, nil
}

// backingUp is one backup that is being made.
type backingUp struct {
	s     *Service
	disk  diskRecord
	work  Work
	base  *pointRecord // the backup that it may add to
	full  string       // why it adds to none
	stack *Stack
	fresh []mapped // the layers that the base does not have
	file  heldCipher

	warnings []string
}

func (m *backingUp) run(ctx context.Context, request string, spec BackupSpec) (p pointRecord, err error) {
	s, d := m.s, m.disk
	if err := s.backupDir(); err != nil {
		return p, err
	}
	if err := m.findBase(ctx, spec.Full); err != nil {
		return p, err
	}
	if m.base != nil {
		free, err := m.holdBase(ctx)
		if err != nil {
			return p, err
		}
		defer free()
	}
	public, err := s.Keys.SigningKey(ctx)
	if err != nil {
		return p, err
	}
	p = pointRecord{Version: recordVersion, Kind: BackupKind, ID: uuid.New(), Name: spec.Name, Project: d.Project, Disk: d.ID, DiskName: d.Name,
		Layer: d.Top, Size: d.Size, SectorSize: d.SectorSize, Encrypted: d.Encrypted, Key: d.Key, Status: Creating, Created: s.Clock.Now(), Request: request,
		Backup: &backupInfo{Store: s.Keys.ID(), Public: public}}
	var dek []keystore.Record
	if d.Encrypted {
		// Under the disk's key (rule A30), which has to be usable before anything is begun.
		rec, err := s.Keys.GenerateDEKUnder(ctx, d.Project, d.Key, p.holder(), p.fileLayer(), d.SectorSize)
		if err != nil {
			return p, err
		}
		dek = append(dek, rec)
	}
	free, err := s.usePoint(p) // nobody deletes it before it is there
	if err != nil {
		return p, err
	}
	defer free()
	if err := s.freeze(ctx, request, d, &p, nil); err != nil {
		return p, err
	}
	err = s.putDEKs(ctx, dek)
	if err == nil {
		err = m.write(ctx, request, &p)
	}
	if err != nil && !errors.Is(err, catalog.ErrUnknownOutcome) { // of that the next start finds out
		err = errors.Join(err, s.dropBackup(context.WithoutCancel(ctx), p))
	}
	if err == nil {
		m.letGo(context.WithoutCancel(ctx), p)
	}
	return p, err
}

// findBase finds the newest backup of the disk that the next can add to, and says why where there is none.
func (m *backingUp) findBase(ctx context.Context, full bool) error {
	if m.full = "that was asked for"; full {
		return nil
	}
	list, err := m.s.backupsOf(ctx, m.disk.Project, m.disk.ID.String())
	m.full = "the disk has no backup yet"
	for _, p := range slices.Backward(list) {
		if p.Disk != m.disk.ID || p.Status != Available {
			continue
		}
		if m.full = m.notOn(p); m.full == "" {
			m.base = &p
		}
		break
	}
	if code := refusal.CodeOf(err); code == refusal.NotFound {
		err = nil
	}
	return err
}

// holdBase keeps what the backup adds to from being deleted before its record says that it stands on it. It may have gone since it was found.
func (m *backingUp) holdBase(ctx context.Context) (free func(), err error) {
	free, err = m.s.usePoint(*m.base)
	if err != nil {
		return nil, err
	}
	now, err := m.s.lookUpBackup(ctx, m.base.Project, m.base.ID.String())
	if err == nil {
		err = now.whole()
	}
	if err != nil {
		free()
		return nil, err
	}
	return free, nil
}

// notOn says why no backup can add to p, which is the newest.
func (m *backingUp) notOn(p pointRecord) string {
	switch {
	case p.Layer == uuid.Nil:
		return "the newest backup, " + p.Name + ", is not where the disk goes on from"
	case p.Backup.Depth >= backup.MaxDepth:
		return fmt.Sprintf("%d backups stand on each other already", p.Backup.Depth+1)
	}
	f, err := m.s.openBackup(p)
	if err != nil {
		return "the file of the newest backup, " + p.Name + ", can't be read"
	}
	_ = f.Close() // it was not even read
	return ""
}

// letGo takes the place of the backups before: the next one goes on from this. The backup is made whether that works or not.
func (m *backingUp) letGo(ctx context.Context, p pointRecord) {
	if err := m.s.releaseAnchors(ctx, p.Disk, p.ID); err != nil {
		m.warnings = append(m.warnings, fmt.Sprintf("what the backup before it was made of still takes space: %v; the next backup of the disk tries again", err))
	}
}
