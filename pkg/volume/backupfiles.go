package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/backup"
	"nbdcrypt/pkg/durable"
	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/refusal"
)

// The names of files in the backup directory: what is whole, what is being written, and what is being imported.
const (
	backupSuffix  = ".nbdbackup"
	partSuffix    = ".part"
	arrivalSuffix = ".import"
)

// arrivalsKept is how long a transfer that was cut off waits to go on.
const arrivalsKept = 7 * 24 * time.Hour

func (s *Service) backupPath(id uuid.UUID, suffix string) string {
	return filepath.Join(s.Config.Backups, id.String()+suffix)
}

// backupDir makes the backup directory, with the first backup: it may be on storage that is not always there.
func (s *Service) backupDir() error {
	err := os.MkdirAll(s.Config.Backups, 0o700)
	if err == nil {
		err = unix.Access(s.Config.Backups, unix.W_OK)
	}
	if err != nil {
		return refusal.New(refusal.Failed, "see that the daemon's user may write there, or name another directory with `serve --backups`",
			"the directory of backups can't be used: %w", err)
	}
	return nil
}

// backupRoom refuses what does not fit into the backup directory, before anything is written. It leaves the floor of a pool free there: the
// directory may share its file system with the catalog and the audit log.
func (s *Service) backupRoom(n int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(s.Config.Backups, &st); err != nil {
		return nil // who can't tell will see
	}
	space := pool.Space{Total: int64(st.Blocks) * st.Bsize, Free: int64(st.Bavail) * st.Bsize}
	if least := floor(space); space.Free-n < least {
		return noBackupRoom(fmt.Errorf("it takes %d bytes, and %d are free, of which %d are left to others: %w", n, space.Free, least, unix.ENOSPC))
	}
	return nil
}

// noBackupRoom says which file system is full: it is not the pool's, or need not be.
func noBackupRoom(err error) error {
	return refusal.New(refusal.Failed, "delete or prune backups, or name a directory with more room with `serve --backups`", "no space left for the backup: %w", err)
}

// openBackup opens the file of a backup that is whole.
func (s *Service) openBackup(p pointRecord) (*os.File, error) {
	f, err := os.Open(s.backupPath(p.ID, backupSuffix))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refusal.New(refusal.Damaged, "put the file back, or delete the backup and import a copy of it", "the file of backup %s is missing: %w", p.Name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("backup %s: %w", p.Name, err)
	}
	return f, nil
}

// keepBackup makes a file that was written as a whole a backup's.
func (s *Service) keepBackup(f *os.File, id uuid.UUID) error {
	err := f.Sync()
	if err == nil {
		err = os.Rename(f.Name(), s.backupPath(id, backupSuffix))
	}
	if err == nil {
		err = durable.Dir(s.Config.Backups)
	}
	return explainFull(err)
}

func explainFull(err error) error {
	var told *refusal.Error
	if isFull(err) && !errors.As(err, &told) {
		return noBackupRoom(err)
	}
	return err
}

// dropBackupFiles removes what there is of a backup, whole or not.
func (s *Service) dropBackupFiles(id uuid.UUID) error {
	var errs []error
	for _, suffix := range []string{backupSuffix, partSuffix} {
		if err := os.Remove(s.backupPath(id, suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// dropParts removes what a crash left half written, and transfers that nobody goes on with. Files that the catalog does not name stay: a
// backup may be a copy that somebody put there.
func (s *Service) dropParts(context.Context) error {
	entries, err := os.ReadDir(s.Config.Backups)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		id, suffix, _ := strings.Cut(e.Name(), ".")
		if _, bad := uuid.Parse(id); bad != nil {
			continue
		}
		old := false
		if info, err := e.Info(); err == nil {
			old = s.Clock.Now().Sub(info.ModTime()) > arrivalsKept
		}
		if "."+suffix == partSuffix || "."+suffix == arrivalSuffix && old {
			err = errors.Join(err, os.Remove(filepath.Join(s.Config.Backups, e.Name())))
		}
	}
	if err != nil {
		s.cannot("the directory of backups", err)
	}
	return nil
}

// header reads the beginning of a file.
func headerOf(f *os.File) (backup.Header, error) {
	p := make([]byte, backup.HeaderSize)
	n, err := f.ReadAt(p, 0)
	if n < len(p) {
		return backup.Header{}, refusal.New(refusal.Damaged, "get this backup from another copy", "%s has no header: %w", f.Name(), err)
	}
	return backup.DecodeHeader(p)
}
