package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// onDisk is what this program is called where it goes on. The kernel gives it arguments as it likes.
const onDisk = "init-on-disk"

// goToRoot goes on in the system on a disk, where the kernel was told of one by guest.root=DEVICE: its init is this program again. There, and
// where there is no such disk, it returns.
func goToRoot() error {
	device := told("guest.root")
	if device == "" || os.Args[0] == onDisk {
		return nil
	}
	const root = "/newroot"
	if err := errors.Join(os.Mkdir(root, 0o755), waitFor(device), syscall.Mount(device, root, "ext4", 0, "")); err != nil {
		return fmt.Errorf("mounting %s: %w", device, err)
	}
	// What is mounted here stays under the new root, out of sight.
	if err := errors.Join(os.Chdir(root), syscall.Mount(".", "/", "", syscall.MS_MOVE, ""), syscall.Chroot("."), os.Chdir("/")); err != nil {
		return fmt.Errorf("going to the root on %s: %w", device, err)
	}
	return syscall.Exec("/init", []string{onDisk}, os.Environ())
}

// told is what the kernel was told of a word, empty where that was nothing.
func told(word string) string {
	line, _ := os.ReadFile("/proc/cmdline")
	for _, said := range strings.Fields(string(line)) {
		if value, ok := strings.CutPrefix(said, word+"="); ok {
			return value
		}
	}
	return ""
}

func waitFor(device string) error {
	for range 1000 {
		if _, err := os.Stat(device); err == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("%s does not appear", device)
}
