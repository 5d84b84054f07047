package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/refusal"
)

// dirLock keeps a second daemon away from a directory. The kernel drops it with the process, so nothing is ever stale.
type dirLock struct{ file *os.File }

// lockDir takes the lock file of dir and writes into it who has it; a second daemon is refused with the first one's name.
func lockDir(dir, name, what string, holder string) (*dirLock, error) {
	path := filepath.Join(dir, name)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, refusal.New(refusal.Failed, "see that the daemon's user may write "+dir+", and that "+name+" in it is an ordinary file or absent",
			"%s can't be locked: %w", what, err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer file.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("daemon: lock %s: %w", path, err)
		}
		text, _ := os.ReadFile(path) // who it is is a courtesy; that it is somebody is certain
		return nil, refusal.New(refusal.Busy, "stop that daemon first, or give this one another --state and --run",
			"%s %s is in use by another daemon (%s)", what, dir, strings.TrimSpace(string(text)))
	}
	if err := errors.Join(file.Truncate(0), writeHolder(file, holder)); err != nil {
		file.Close()
		return nil, fmt.Errorf("daemon: lock %s: %w", path, err)
	}
	return &dirLock{file}, nil
}

func writeHolder(file *os.File, holder string) error {
	_, err := file.WriteAt([]byte(holder+"\n"), 0)
	return err
}

func (l *dirLock) release() { _ = l.file.Close() }

// holderLine names this process.
func holderLine(o Options, started time.Time) string {
	return fmt.Sprintf("pid %d, since %s, state %s, sockets in %s", os.Getpid(), started.Format(time.RFC3339), o.State, o.Run)
}
