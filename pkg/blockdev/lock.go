package blockdev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/refusal"
)

// lockDir holds a lock for each device that somebody keeps. It is root's alone, and the same for all daemons.
const lockDir = "run/nbdcrypt-device"

// lock makes a device ours to keep. A device node itself is no place for a lock: udev passes over one that is locked.
func (h host) lock(path string) (*os.File, error) {
	dir := filepath.Join(h.root, lockDir)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		if errors.Is(err, os.ErrPermission) {
			return nil, refusal.New(refusal.Denied, "run it as root", "connecting %s needs root", path)
		}
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, filepath.Base(path)), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, os.ErrPermission) {
		return nil, refusal.New(refusal.Denied, "run it as root", "connecting %s needs root", path)
	}
	if err != nil {
		return nil, err
	}
	if err := h.flock(f, path); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

const (
	// endTime is how long whoever kept a device may take to end when it has gone.
	endTime = 3 * time.Second
	// lookerTime is how long Kept of another command may be at its look.
	lookerTime = 200 * time.Millisecond
)

// flock locks the file. A lock on a device that is not connected is one of somebody who is about to end.
func (h host) flock(f *os.File, path string) error {
	for began := time.Now(); ; time.Sleep(soon) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("locking %s: %w", f.Name(), err)
		}
		is, err := h.connected(path)
		took := time.Since(began)
		if err != nil || took > endTime || is && took > lookerTime {
			return errors.Join(refusal.New(refusal.Busy, "name another with --device, or let --device auto choose", "%s is kept by another command: %w", path, syscall.EBUSY), err)
		}
	}
}

// Kept tells whether somebody keeps a device, and would reconnect it.
func Kept(path string) (bool, error) { return here.kept(path) }

func (h host) kept(path string) (bool, error) {
	f, err := os.Open(filepath.Join(h.root, lockDir, filepath.Base(path)))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}
