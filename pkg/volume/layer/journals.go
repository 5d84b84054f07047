package layer

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/google/uuid"
)

// Journals are the journals of all layers of a store. They lie in a directory that need not outlive the machine's run.
type Journals struct {
	Dir  string
	Boot uuid.UUID // this run of the machine: page caches are kept for no longer

	mu   sync.Mutex
	size int64              // what all of them take
	of   map[*journal]int64 // what each does
}

// All journals together take no more than journalsMost: it is memory that nobody can take back. From half of that on the longest is
// shortened.
const journalsMost = 64 << 20

// OpenJournals makes the directory where it is missing.
func OpenJournals(dir string) (*Journals, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("layer: which run of the machine this is: %w", err)
	}
	js := &Journals{Dir: dir, of: map[*journal]int64{}}
	if js.Boot, err = uuid.ParseBytes(bytes.TrimSpace(boot)); err != nil {
		return nil, fmt.Errorf("layer: which run of the machine this is: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("layer: %w", err)
	}
	return js, errors.Join(ownDir(filepath.Dir(dir)), ownDir(dir), mayMap(dir))
}

// ownDir refuses a directory that others may have put there, or may put something into: what a journal says is done.
func ownDir(dir string) error {
	st, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("layer: %w", err)
	}
	if owner := st.Sys().(*syscall.Stat_t).Uid; st.Mode().Type() != os.ModeDir || st.Mode().Perm() != 0o700 || int(owner) != os.Geteuid() {
		return fmt.Errorf("layer: %s is no directory of mode 0700 of the daemon's user (%v, of user %d); remove it: %w", dir, st.Mode(), owner, syscall.EPERM)
	}
	return nil
}

// mayMap refuses file systems where memory of a file may have no room when it is written, although room was made: the process would die
// of it. What others lie below an overlay nobody can tell.
func mayMap(dir string) error {
	kind, err := fileSystem(dir)
	if err == nil && !slices.Contains([]int64{tmpfs, ext, xfs, overlay}, kind) {
		err = fmt.Errorf("layer: %s is on a file system (type %#x) that journals can't lie on; a tmpfs is best: %w", dir, kind, syscall.ENOTSUP)
	}
	return err
}

// File systems, as statfs(2) numbers them.
const tmpfs, ext, xfs, overlay, btrfs, f2fs = 0x01021994, 0xef53, 0x58465342, 0x794c7630, 0x9123683e, 0xf2f52010

func fileSystem(path string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, fmt.Errorf("layer: %s: %w", path, err)
	}
	return int64(st.Type), nil
}

// path is where the journal of one opening of a layer lies.
func (js *Journals) path(id, opening uuid.UUID) string {
	return filepath.Join(js.Dir, id.String()+"."+opening.String())
}

// Drop removes a journal that is not needed any more, where there is one.
func (js *Journals) Drop(id, opening uuid.UUID) error {
	err := os.Remove(js.path(id, opening))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Sweep removes what is no journal that somebody keeps.
func (js *Journals) Sweep(keeps func(layer, opening uuid.UUID) bool) error {
	entries, err := os.ReadDir(js.Dir)
	for _, e := range entries {
		name := e.Name()
		if len(name) == 73 { // two ids and a dot
			id, err1 := uuid.Parse(name[:36])
			opening, err2 := uuid.Parse(name[37:])
			if err1 == nil && err2 == nil && keeps(id, opening) {
				continue
			}
		}
		err = errors.Join(err, os.Remove(filepath.Join(js.Dir, name)))
	}
	return err
}

// take has a journal grow, as far as there is room for all. Where that gets scarce the longest is told to be shortened.
func (js *Journals) take(j *journal, n int64) error {
	js.mu.Lock()
	defer js.mu.Unlock()
	if js.size+n > journalsMost {
		return fmt.Errorf("layer: all journals together are as long as they may be: %w", syscall.ENOSPC)
	}
	js.size += n
	js.of[j] += n
	if js.size > journalsMost/2 {
		longest := j
		for other, size := range js.of {
			if size > js.of[longest] {
				longest = other
			}
		}
		longest.shorten()
	}
	return nil
}

// give takes back what a journal has let go of; all that it has where it is gone.
func (js *Journals) give(j *journal, n int64, gone bool) {
	js.mu.Lock()
	defer js.mu.Unlock()
	js.size -= n
	if js.of[j] -= n; gone {
		delete(js.of, j)
	}
}
