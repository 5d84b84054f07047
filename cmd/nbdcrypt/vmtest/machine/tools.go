package machine

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// tools are the programs of Debian packages that the guest has, beside busybox. Where both have one, the guest has this one.
var tools = []string{"dash", "mount", "umount", "losetup", "blkid", "sfdisk", "blockdev", "fstrim", "wipefs", "setpriv", "dd", "sync", "stat", "split",
	"mke2fs", "e2fsck", "tune2fs", "debugfs", "mkfs.xfs", "xfs_repair", "nbd-client", "cryptsetup", "dmsetup", "fusermount3"}

// links are other names of tools.
var links = map[string]string{"/bin/sh": "dash", "/sbin/mkfs.ext4": "mke2fs", "/sbin/fsck.ext4": "e2fsck"}

// addTools adds programs with the libraries that they load.
func (s *tree) addTools() error {
	for _, tool := range tools {
		if err := s.addProgram(tool); err != nil {
			return err
		}
	}
	for name, to := range links {
		path, err := exec.LookPath(to)
		if err != nil {
			return err
		}
		s.link(name, "/"+inside(path))
	}
	return s.addBusybox()
}

func (s *tree) addProgram(tool string) error {
	path, err := exec.LookPath(tool)
	if err != nil {
		return fmt.Errorf("%s is missing in the guest: %w", tool, err)
	}
	if err := s.copy(path, 0o755); err != nil {
		return err
	}
	out, err := exec.Command("ldd", path).CombinedOutput()
	if err != nil {
		if strings.Contains(string(out), "not a dynamic executable") {
			return nil
		}
		return fmt.Errorf("ldd %s: %w\n%s", path, err, out)
	}
	for line := range strings.Lines(string(out)) {
		for _, word := range strings.Fields(line) {
			if filepath.IsAbs(word) {
				if err := s.copy(word, 0o755); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (s *tree) addBusybox() error {
	if err := s.addProgram("busybox"); err != nil {
		return err
	}
	applets, err := exec.Command("busybox", "--list").Output()
	for _, applet := range strings.Fields(string(applets)) {
		if !s.have["usr/sbin/"+applet] {
			s.link("/bin/"+applet, "busybox")
		}
	}
	return err
}
