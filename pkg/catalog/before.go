package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/durable"
	"nbdcrypt/pkg/refusal"
)

// lockedDir is the catalog's directory, held by this process, with the copy beside it.
type lockedDir struct {
	path string
	fd   *os.File
}

func lockDir(dir string) (*lockedDir, error) {
	path, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	fd, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	if err := unix.Flock(int(fd.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("catalog: %s is open in another process: %w", path, err), fd.Close())
	}
	return &lockedDir{path, fd}, nil
}

func (d *lockedDir) Close() error { return d.fd.Close() }

// before is where the copy lies once it is whole; half is where it is being made or taken away; damaged is where
// the first one stays that did not prove whole.
func (d *lockedDir) before() string  { return d.path + ".before" }
func (d *lockedDir) half() string    { return d.path + ".before.part" }
func (d *lockedDir) damaged() string { return d.path + ".damaged" }

// resume takes up what an earlier Open left: a copy that is still there was never proven needless, so the
// directory is made from it again.
func (d *lockedDir) resume() error {
	if err := os.RemoveAll(d.half()); err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	if _, err := os.Stat(d.before()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return d.putBack()
}

// keepCopy copies the files, durably. Of a table another name will do: Badger writes one as a whole, never changes it, and removes it
// (for which it cuts it to nothing first) only in a compaction, of which there is none until the copy has gone.
func (d *lockedDir) keepCopy() error {
	if _, err := os.Stat(d.before()); err == nil {
		return nil
	}
	if err := os.Mkdir(d.half(), 0o700); err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	if err := copyFiles(d.path, d.half(), linkTable); err != nil {
		return err
	}
	if err := os.Rename(d.half(), d.before()); err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	return durable.Dir(filepath.Dir(d.path))
}

// putBack makes the directory what the copy is. The copy stays, and shares nothing with it.
func (d *lockedDir) putBack() error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return fmt.Errorf("catalog: putting back the copy: %w", err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(d.path, e.Name())); err != nil {
			return fmt.Errorf("catalog: putting back the copy: %w", err)
		}
	}
	return copyFiles(d.before(), d.path, copyFile)
}

// setAside ends an Open that failed: the directory is as it was, and the copy no longer in the way of whoever
// restores it from a backup.
func (d *lockedDir) setAside(damage bool) error {
	if err := d.putBack(); err != nil {
		return err
	}
	if _, err := os.Stat(d.damaged()); err == nil || !damage {
		return d.dropCopy()
	}
	if err := os.Rename(d.before(), d.damaged()); err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	return durable.Dir(filepath.Dir(d.path))
}

func (d *lockedDir) dropCopy() error {
	if err := os.Rename(d.before(), d.half()); err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	if err := durable.Dir(filepath.Dir(d.path)); err != nil {
		return err
	}
	if err := os.RemoveAll(d.half()); err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	return nil
}

// explain adds to damage the log files that Badger can read only in part, and where the copy is.
func (d *lockedDir) explain(err error) error {
	if !errors.Is(err, ErrDamaged) {
		return err
	}
	cut := manifestCut(filepath.Join(d.before(), badger.ManifestFilename))
	for _, kind := range []string{"*.mem", "*.vlog"} {
		names, _ := filepath.Glob(filepath.Join(d.before(), kind))
		for _, name := range names {
			if at, broken := brokenAt(name); broken {
				cut += fmt.Sprintf("; %s is unreadable from byte %d on", filepath.Base(name), at)
			}
		}
	}
	return fmt.Errorf("%w%s; the files of %s are as they were, with a copy in %s", err, cut, d.path, d.damaged())
}

// dropEmptied removes logs without a byte. Badger cuts a log to nothing before it removes it, and makes one before it gives it a length; where it is
// killed in between it never opens again. Whether one held what is missed now, the proof tells.
func (d *lockedDir) dropEmptied() error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext != ".mem" && ext != ".vlog" {
			continue
		}
		st, err := e.Info()
		if err == nil && st.Size() == 0 {
			err = os.Remove(filepath.Join(d.path, e.Name()))
		}
		if err != nil {
			return fmt.Errorf("catalog: %w", err)
		}
	}
	return nil
}

// reserve sees to it that there is room, and that the logs which Badger has mapped have their blocks.
func (d *lockedDir) reserve() error {
	free, err := freeBytes(d.path)
	if err != nil {
		return err
	}
	if free < needFree {
		return refusal.New(refusal.Failed, "make room in the file system of "+d.path+", then try again",
			"the file system of the catalog has %d MiB free, and %d MiB are needed to change anything: %w", free>>20, needFree>>20, syscall.ENOSPC)
	}
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext != ".mem" && ext != ".vlog" || !e.Type().IsRegular() {
			continue
		}
		if err := allocate(filepath.Join(d.path, e.Name())); err != nil {
			return fmt.Errorf("catalog: reserve space: %w", err)
		}
	}
	return nil
}

// allocate gives every byte of a file its block, where the file system can. A file that Badger has removed in the
// meantime needs none.
func allocate(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Blocks*512 >= st.Size {
		return nil
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return ignoreMissing(err)
	}
	defer f.Close()
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, st.Size)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func copyFiles(from, to string, one func(from, to string) error) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return fmt.Errorf("catalog: copy: %w", err)
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		if err := one(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return fmt.Errorf("catalog: copy: %w", err)
		}
	}
	return durable.Dir(to)
}

// linkTable gives a table another name, and copies what is none, or what can't have one there.
func linkTable(from, to string) error {
	if filepath.Ext(from) == ".sst" && os.Link(from, to) == nil {
		return nil
	}
	return copyFile(from, to)
}

// copyFile copies one file and keeps its holes: Badger's logs are mostly that.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	size, err := copySparse(out, in)
	if err == nil {
		err = out.Truncate(size)
	}
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

func copySparse(out io.WriterAt, in io.Reader) (size int64, err error) {
	buf, zero := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(in, buf)
		if n > 0 && !bytes.Equal(buf[:n], zero[:n]) {
			if _, err := out.WriteAt(buf[:n], size); err != nil {
				return size, err
			}
		}
		size += int64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return size, nil
		}
		if err != nil {
			return size, err
		}
	}
}
