package volume

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/backup"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// backupInfo is what a point is besides, where it is a backup. Its layer is where the next backup of the disk begins, and the zero UUID once a
// later one has taken that place. Its file's own DEK is the record of the layer that has the backup's id.
type backupInfo struct {
	Store uuid.UUID `json:"store"`
	// Public is the key that the file has to be signed under.
	Public   []byte    `json:"public"`
	Parent   uuid.UUID `json:"parent"`
	Depth    int       `json:"depth"`
	Manifest string    `json:"manifest"`
	Data     int64     `json:"data"`
	Length   int64     `json:"length"`
	Imported bool      `json:"imported,omitempty"`
}

// Backup is a backup as it is now.
type Backup struct {
	ID, Name, Project string
	// Disk may be gone by now, and DiskName is what it was called.
	Disk, DiskName string
	Size           int64
	SectorSize     int
	Encrypted      bool
	Key            *keystore.Info
	Status         Status
	Created        time.Time
	// Parent is the backup that this one adds to, with its name while that is here; empty for a full one.
	Parent, ParentName string
	Depth              int
	Store, Manifest    string
	Public             ed25519.PublicKey
	Data, Length       int64
	// Foreign tells that another store made it, and Imported that its file came from elsewhere.
	Foreign, Imported bool
	// Full says why the backup that was just made is a full one; it is empty for an incremental one, and later.
	Full     string
	Warnings []string
}

// fileLayer is what the DEK of a backup's file is called as that of a layer.
func (p pointRecord) fileLayer() string { return p.ID.String() }

func (p pointRecord) manifest() (h backup.Hash, err error) {
	n, err := hex.Decode(h[:], []byte(p.Backup.Manifest))
	if err != nil || n != len(h) {
		return h, fmt.Errorf("%w: record %q has the manifest hash %q", catalog.ErrDamaged, p.key(), p.Backup.Manifest)
	}
	return h, nil
}

// findBackup is findPoint for what has the fields of a backup too.
func findBackup(r catalog.Reader, project, ref string) (pointRecord, error) {
	p, err := findPoint(r, BackupKind, project, ref)
	if err == nil && p.Backup == nil {
		err = fmt.Errorf("%w: record %q is no backup", catalog.ErrDamaged, p.key())
	}
	return p, err
}

func (s *Service) lookUpBackup(ctx context.Context, project, ref string) (p pointRecord, err error) {
	err = s.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		p, err = findBackup(r, project, ref)
		return err
	})
	return p, explainBackup(ref, err)
}

func explainBackup(ref string, err error) error {
	if isDamage(err) && refusal.CodeOf(err) != refusal.Damaged {
		return refusal.New(refusal.Damaged, "its file may be whole: `nbdcrypt backup verify FILE --public-key KEY` tells, and `backup import` takes it again once this one is deleted",
			"backup %s: %w", ref, err)
	}
	return err
}

// GetBackup tells about one backup.
func (s *Service) GetBackup(ctx context.Context, project, ref string) (Backup, error) {
	p, err := s.lookUpBackup(ctx, project, ref)
	if err != nil {
		return Backup{}, err
	}
	return s.describeBackup(ctx, p), nil
}

// Backups lists the backups of a project, or of one of its disks, the oldest first.
func (s *Service) Backups(ctx context.Context, project, disk string) ([]Backup, error) {
	records, err := s.backupsOf(ctx, project, disk)
	list := make([]Backup, 0, len(records))
	for _, p := range records {
		list = append(list, s.describeBackup(ctx, p))
	}
	return list, err
}

// backupsOf reads the records of a project's backups, of one disk where that is named, by the name that it has or had.
func (s *Service) backupsOf(ctx context.Context, project, disk string) (list []pointRecord, err error) {
	of, err := s.diskOfBackups(ctx, project, disk)
	if err != nil {
		return nil, err
	}
	err = s.eachBackup(ctx, func(p pointRecord) {
		if p.Project == project && (disk == "" || p.Disk == of) {
			list = append(list, p)
		}
	})
	slices.SortFunc(list, func(a, b pointRecord) int {
		// The time in a file has whole seconds: a chain that was imported may be of one.
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Backup.Depth, b.Backup.Depth))
	})
	return list, explainList(err)
}

// eachBackup calls fn with every backup whose record can be read.
func (s *Service) eachBackup(ctx context.Context, fn func(pointRecord)) error {
	return s.Catalog.View(ctx, func(r catalog.Reader) error {
		return catalog.Walk(r, BackupKind+"/", func(pair catalog.Pair, err error) error {
			var p pointRecord
			if err == nil {
				p, err = parsePoint(pair.Key, pair.Value)
			}
			if err == nil && p.Backup != nil {
				fn(p)
			}
			return nil
		})
	})
}

// diskOfBackups is the id of a disk that is there, or was when it was backed up.
func (s *Service) diskOfBackups(ctx context.Context, project, ref string) (id uuid.UUID, err error) {
	if ref == "" {
		return id, nil
	}
	d, missing := s.lookUp(ctx, project, ref)
	if refusal.CodeOf(missing) != refusal.NotFound {
		return d.ID, missing
	}
	gone := map[uuid.UUID]bool{}
	err = s.eachBackup(ctx, func(p pointRecord) {
		if p.Project == project && (p.DiskName == ref || p.Disk.String() == ref) {
			gone[p.Disk], id = true, p.Disk
		}
	})
	switch {
	case err == nil && len(gone) == 0:
		err = missing
	case err == nil && len(gone) > 1:
		err = refusal.New(refusal.Usage, "name it by its id, which `nbdcrypt backup list` shows", "%d disks that are deleted were called %s", len(gone), ref)
	}
	return id, err
}

// describeBackup makes of a record what users see.
func (s *Service) describeBackup(ctx context.Context, p pointRecord) Backup {
	i := p.Backup
	b := Backup{ID: p.ID.String(), Name: p.Name, Project: p.Project, Disk: p.Disk.String(), DiskName: p.DiskName, Size: p.Size, SectorSize: p.SectorSize,
		Encrypted: p.Encrypted, Status: p.Status, Created: p.Created, Depth: i.Depth, Store: i.Store.String(), Manifest: i.Manifest, Public: i.Public,
		Data: i.Data, Length: i.Length, Foreign: i.Store != s.Keys.ID(), Imported: i.Imported}
	if p.Encrypted && !b.Foreign {
		b.Key = s.keyOf(ctx, diskRecord{Project: p.Project, Key: p.Key})
	}
	if i.Parent != uuid.Nil {
		b.Parent = i.Parent.String()
		if parent, err := s.lookUpBackup(ctx, p.Project, b.Parent); err == nil {
			b.ParentName = parent.Name
		} else {
			b.Warnings = append(b.Warnings, "the backup "+b.Parent+" that it stands on is not here: import that before this is restored")
		}
	}
	if p.Lost != "" {
		b.Warnings = append(b.Warnings, "the disk was backed up as it was found: "+p.Lost)
	}
	if b.Foreign && p.Encrypted {
		b.Warnings = append(b.Warnings, "its key is in store "+b.Store+" and not here: it can be verified and exported, and restored there")
	}
	return b
}
