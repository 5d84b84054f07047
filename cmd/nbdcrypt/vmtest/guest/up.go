package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// mounts are in the order in which they are needed.
var mounts = []struct{ kind, dir, options string }{
	{"proc", "/proc", ""}, {"sysfs", "/sys", ""}, {"devtmpfs", "/dev", "mode=0755"}, {"devpts", "/dev/pts", "mode=0620"},
	{"tmpfs", "/dev/shm", "mode=1777"}, {"tmpfs", "/run", "mode=0755"}, {"tmpfs", "/tmp", "mode=1777"}, {"cgroup2", "/sys/fs/cgroup", ""},
}

// bringUp makes a Linux system of a bare kernel: what is mounted everywhere, the modules, loopback.
func bringUp() error {
	for name, value := range map[string]string{"PATH": "/usr/sbin:/usr/bin", "HOME": "/root", "TERM": "dumb", "LC_ALL": "C",
		"DM_DISABLE_UDEV": "1"} { // there is no udev that would answer libdevmapper
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	for _, m := range mounts {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount(m.kind, m.dir, m.kind, 0, m.options); err != nil {
			return fmt.Errorf("mounting %s: %w", m.dir, err)
		}
	}
	for link, to := range map[string]string{"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2"} {
		if err := os.Symlink(to, link); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return errors.Join(loadModules(), loopbackUp(), linkDisks())
}

// loadModules loads what /etc/modules lists, a path a line, dependencies first.
func loadModules() error {
	list, err := os.ReadFile("/etc/modules")
	if err != nil {
		return err
	}
	for _, path := range strings.Fields(string(list)) {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("loading %s: %w", path, err)
		}
	}
	return nil
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, request)
}

// linkDisks gives each virtio disk that has a serial a name by it, as udev would.
func linkDisks() error {
	serials, err := filepath.Glob("/sys/block/*/serial")
	if err != nil || len(serials) == 0 {
		return err
	}
	if err := os.MkdirAll("/dev/disk/by-serial", 0o755); err != nil {
		return err
	}
	for _, path := range serials {
		serial, err := os.ReadFile(path)
		if err != nil || len(serial) == 0 {
			continue // it goes away just now, or has none
		}
		link := "/dev/disk/by-serial/" + strings.TrimSpace(string(serial))
		_ = os.Remove(link)
		// Another script may have made it meanwhile.
		if err := os.Symlink("/dev/"+filepath.Base(filepath.Dir(path)), link); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}
