package vm

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"nbdcrypt/pkg/refusal"
)

// directory is a server's own, where its sockets are. A lock tells it from one that a killed runner left; it also keeps whoever tidies /tmp away.
type directory struct {
	path string
	file *os.File
}

// directory makes the server's directory in the first place where it may. Whoever opens the console, and this process later on, may be somewhere else.
func (r *runner) directory(id string) (*directory, error) {
	temp := fmt.Sprintf("/tmp/nbdcrypt-%d", os.Geteuid())
	run, err := filepath.Abs(r.RunDir)
	if err != nil || r.RunDir == "" {
		run = ""
	}
	for _, place := range [][]string{{run, "servers"}, {r.RuntimeDir, "nbdcrypt", "servers"}, {"/tmp", filepath.Base(temp), "servers"}} {
		if place[0] == "" {
			continue
		}
		path := place[0]
		for _, name := range append(place[1:], id) {
			path = filepath.Join(path, name)
			if err = own(path); err != nil {
				break
			}
		}
		if err == nil {
			return lock(path, r.server.Name)
		}
	}
	return nil, refusal.New(refusal.Failed, "set $XDG_RUNTIME_DIR to a directory of your own", "server %s has no directory for its console: %w", r.server.Name, err)
}

// own makes a directory that is nobody else's, or finds that it is.
func own(path string) error {
	err := os.Mkdir(path, 0o700)
	if err == nil || !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	stat, _ := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || info.Mode().Perm()&0o077 != 0 || stat == nil || int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("%s is not a directory that is yours alone (0700)", path)
	}
	return nil
}

func lock(path, server string) (*directory, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	d := &directory{path, file}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		return nil, refusal.New(refusal.Busy, "end the process that runs it, or wait: it ends by itself when the daemon does not lend it its disks again", "server %s is still run by a process that waits for its disks (it has %s)", server, path)
	}
	for _, name := range []string{consoleSocket, logSocket} {
		if err := os.Remove(d.at(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, errors.Join(err, file.Close())
		}
	}
	return d, nil
}

// at is a path in the directory that is short, however long the directory's is.
func (d *directory) at(name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.file.Fd(), name)
}

func (d *directory) listen(name string) (*net.UnixListener, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: d.at(name), Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("vm: the server's console: %w", err)
	}
	l.SetUnlinkOnClose(false) // the directory goes as a whole
	return l, nil
}

// remove removes the directory. A nil one was never made.
func (d *directory) remove() {
	if d == nil {
		return
	}
	for _, name := range []string{consoleSocket, logSocket} {
		_ = os.Remove(d.at(name))
	}
	_ = os.Remove(d.path)
	_ = d.file.Close()
}
