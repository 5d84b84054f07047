package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"nbdcrypt/pkg/refusal"
)

// runLock is the lock file of a run directory: where it is, the directory is one of ours.
const runLock = ".lock"

// privateDir makes the state directory, and refuses one that others can look into.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return cantMake(dir, "--state", err)
	}
	info, err := ownDir(dir, "--state")
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		hint := "run `chmod 700 " + dir + "`"
		if entries, err := os.ReadDir(dir); err == nil && len(entries) == 0 {
			hint = "it is empty: if it should not be, mount what belongs there; else " + hint
		}
		return refusal.New(refusal.Failed, hint, "the state directory %s is open to other users (mode %04o)", dir, info.Mode().Perm())
	}
	return nil
}

// publicDir makes the run directory, which clients have to reach and nobody else may write. A directory that was there
// for something else keeps its mode: /tmp or somebody's home must not change because of a wrong --run.
func publicDir(dir string) error {
	if err := makeOpen(dir); err != nil {
		return cantMake(dir, "--run", err)
	}
	info, err := ownDir(dir, "--run")
	if err != nil || info.Mode().Perm() == 0o755 {
		return err
	}
	if ours(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			return refusal.New(refusal.Failed, "name a directory of your own with --run", "the run directory can't be opened to clients: %w", err)
		}
		return nil
	}
	return refusal.New(refusal.Failed, "name a directory of its own with --run, such as "+filepath.Join(dir, "nbdcrypt"),
		"the run directory %s holds other things and has mode %04o; it would need 0755", dir, info.Mode().Perm())
}

// makeOpen makes a directory, and those above it that are missing, for everybody to pass; the umask alone would close them.
func makeOpen(dir string) error {
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir) {
		if err := makeOpen(filepath.Dir(dir)); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o755)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Chmod(dir, 0o755)
}

func cantMake(dir, flag string, err error) error {
	return refusal.New(refusal.Failed, "name a directory that this user may write with "+flag, "the directory %s can't be made: %w", dir, err)
}

// ownDir refuses a directory of another user, who could put other files in the place of ours.
func ownDir(dir, flag string) (fs.FileInfo, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("daemon: %w", err)
	}
	if !info.IsDir() {
		return nil, refusal.New(refusal.Failed, "name a directory with "+flag, "%s is not a directory", dir)
	}
	owner, me := info.Sys().(*syscall.Stat_t).Uid, uint32(os.Geteuid())
	if owner != me && owner != 0 {
		return nil, refusal.New(refusal.Failed, fmt.Sprintf("name another directory with %s, or run the daemon as user %d", flag, owner),
			"the directory %s belongs to user %d, and the daemon runs as user %d", dir, owner, me)
	}
	return info, nil
}

// ours tells a directory that is empty or was a run directory before.
func ours(dir string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if e.Name() == runLock {
			return true
		}
	}
	return len(entries) == 0
}
