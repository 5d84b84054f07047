package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// systemdRoot is the size of such a root, in bytes.
const systemdRoot = 384 << 20

// Systemd are the options of a machine whose first disk SystemdRoot has made.
const Systemd = "guest.root=/dev/vda guest.init=/lib/systemd/systemd"

// systemdPrograms are those of Debian's systemd and udev that boot a system, mount what fstab says, and stop it.
var systemdPrograms = []string{"/lib/systemd/systemd", "/lib/systemd/systemd-shutdown", "/lib/systemd/systemd-sulogin-shell",
	"/lib/systemd/system-generators/systemd-fstab-generator", "/bin/systemctl", "/bin/udevadm"}

// systemdFiles are their files, as patterns. Nothing there is enabled.
var systemdFiles = []string{"/lib/systemd/system/*.target", "/lib/systemd/system/systemd-udev*", "/lib/systemd/system/systemd-poweroff.service",
	"/lib/udev/rules.d/50-udev-default.rules", "/lib/udev/rules.d/60-block.rules",
	"/lib/udev/rules.d/60-persistent-storage.rules", "/lib/udev/rules.d/99-systemd.rules"}

// systemdSettings are what an installed system would have by links: udev is started, and systemd speaks on the console.
var systemdSettings = map[string]string{
	"/etc/systemd/system/default.target":           "[Unit]\nRequires=multi-user.target\nAfter=multi-user.target\nAllowIsolate=yes\n",
	"/etc/systemd/system/sysinit.target.d/10.conf": "[Unit]\nWants=systemd-udevd.service systemd-udev-trigger.service local-fs.target\nAfter=local-fs.target\n",
	"/etc/systemd/system.conf":                     "[Manager]\nLogTarget=console\nDefaultStandardOutput=null\n",
	"/etc/machine-id":                              "0123456789abcdef0123456789abcdef\n",
	"/etc/os-release":                              "ID=test\n",
	"/etc/modules":                                 "", // they are loaded by then
}

// SystemdRoot makes a disk with the root of a small system that Debian's systemd is process 1 of, with the program under test where its units
// look for it, those files, and more programs of this machine's. The agent runs beside systemd.
func SystemdRoot(path string, files []File, programs ...string) error {
	dir, err := os.MkdirTemp(prepared.dir, "systemd")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := newTree()
	for _, f := range files {
		s.file(f.Path, f.Mode, f.Content)
	}
	for name, content := range systemdSettings {
		s.file(name, 0o644, []byte(content))
	}
	s.addSystem()
	s.dir("/var/tmp")
	s.dir("/var/log")
	if err := errors.Join(s.addOurs(), s.addTools()); err != nil {
		return err
	}
	s.link("/usr/local/bin/nbdcrypt", "/bin/nbdcrypt")
	for _, program := range append(programs, systemdPrograms...) {
		if err := s.addProgram(program); err != nil {
			return err
		}
	}
	s.link("/lib/systemd/systemd-udevd", "/bin/udevadm")
	for _, pattern := range systemdFiles {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			return errors.Join(fmt.Errorf("nothing is called %s", pattern), err)
		}
		for _, file := range found {
			if info, err := os.Stat(file); err != nil || info.IsDir() {
				continue // what is enabled
			}
			if err := s.copy(file, 0o644); err != nil {
				return err
			}
		}
	}
	if err := errors.Join(os.Mkdir(dir+"/top", 0o755), s.lay(dir+"/top")); err != nil {
		return err
	}
	_, err = output(dir, "mkfs.ext4", "-q", "-E", "root_owner=0:0", "-d", "top", path, fmt.Sprint(systemdRoot/1024))
	return err
}

// Ended waits until a machine that was told to has gone off by itself.
func (m *Machine) Ended() {
	m.t.Helper()
	select {
	case <-m.ended:
	case <-m.t.Context().Done():
		m.t.Fatal("the machine does not go off")
	}
}
