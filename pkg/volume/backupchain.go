package volume

import (
	"context"
	"crypto/ed25519"
	"errors"
	"os"

	"github.com/google/uuid"

	"nbdcrypt/pkg/backup"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// openedBackup is a backup with its file.
type openedBackup struct {
	pointRecord
	file *os.File
	backup.Verified
}

// chainOf opens a backup and all that it stands on, the full one first. Nobody deletes any of them until done is called.
func (s *Service) chainOf(ctx context.Context, p pointRecord) (list []*openedBackup, done func(), err error) {
	var frees []func()
	done = func() {
		for _, o := range list {
			_ = o.file.Close() // it was only read
		}
		for _, free := range frees {
			free()
		}
	}
	for {
		err := p.whole()
		if err == nil {
			var free func()
			if free, err = s.usePoint(p); err == nil {
				frees = append(frees, free)
			}
		}
		var f *os.File
		if err == nil {
			f, err = s.openBackup(p)
		}
		if err != nil {
			done()
			return nil, nil, err
		}
		list = append([]*openedBackup{{pointRecord: p, file: f}}, list...)
		if p.Backup.Parent == uuid.Nil {
			return list, done, nil
		}
		child := p
		if p, err = s.parentOf(ctx, child); err == nil && len(list) > backup.MaxDepth {
			err = refusal.New(refusal.Damaged, "restore the state directory from a backup", "backup %s stands on more than %d others", child.Name, backup.MaxDepth)
		}
		if err != nil {
			done()
			return nil, nil, err
		}
	}
}

func (s *Service) parentOf(ctx context.Context, child pointRecord) (p pointRecord, err error) {
	err = s.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		p, err = get(r, pointKey(BackupKind, child.Backup.Parent), parsePoint)
		return err
	})
	if errors.Is(err, catalog.ErrNotFound) || err == nil && (p.Backup == nil || p.Project != child.Project) {
		return p, refusal.New(refusal.NotFound, "import it: `nbdcrypt backup import FILE`", "backup %s stands on backup %s, which is not here", child.Name, child.Backup.Parent)
	}
	return p, explainBackup(child.Name, err)
}

// verifyChain proves each file against the key that signed it and against the catalog, and that each stands on the one before it.
func verifyChain(ctx context.Context, list []*openedBackup, progress func(done, total int64)) error {
	var before, total int64
	for _, o := range list {
		total += o.Backup.Length
	}
	for i, o := range list {
		v, err := verifyOne(ctx, o, func(n int64) { progress(before+n, total) })
		if err == nil && i > 0 {
			err = backup.Follows(v, list[i-1].Verified)
		}
		if err != nil {
			return inBackup(o.pointRecord, err)
		}
		o.Verified = v
		before += o.Backup.Length
	}
	return nil
}

func verifyOne(ctx context.Context, o *openedBackup, progress func(n int64)) (v backup.Verified, err error) {
	if _, err = o.file.Seek(0, 0); err != nil {
		return v, err
	}
	v, err = backup.Verify(ctx, o.file, ed25519.PublicKey(o.Backup.Public), func(n, _ int64) { progress(n) })
	if err != nil {
		return v, err
	}
	want, err := o.manifest()
	if err == nil && (v.ID != o.pointRecord.ID || v.Manifest != want || v.Header.Encrypted != o.pointRecord.Encrypted) {
		// It may be whole and signed, and an older one all the same.
		err = refusal.New(refusal.Damaged, "get this backup from another copy", "the file is another backup than the catalog knows: %s with the manifest hash %s, not %s with %s",
			v.ID, v.Manifest, o.pointRecord.ID, want)
	}
	return v, err
}

// inBackup says whose file it is.
func inBackup(p pointRecord, err error) error {
	if r := refusal.From(err); r.Code == refusal.Damaged {
		return refusal.New(r.Code, r.Hint, "the file of backup %s (%s%s): %w", p.Name, p.ID, backupSuffix, err)
	}
	return err
}

// VerifyBackup reads a backup and all that it stands on, and tells them, the full one first.
func (s *Service) VerifyBackup(ctx context.Context, project, ref string, progress func(done, total int64)) ([]Backup, error) {
	p, err := s.lookUpBackup(ctx, project, ref)
	if err != nil {
		return nil, err
	}
	list, done, err := s.chainOf(ctx, p)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := verifyChain(ctx, list, progress); err != nil {
		return nil, err
	}
	verified := make([]Backup, len(list))
	for i, o := range list {
		verified[i] = s.describeBackup(ctx, o.pointRecord)
	}
	return verified, nil
}
