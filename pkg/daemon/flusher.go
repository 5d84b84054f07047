package daemon

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// becomeFlusher tells the kernel that pages are cleaned by way of this process, for a file system of this machine may lie on one of its disks. Without that
// its writes to the pool wait until fewer pages are dirty, and its memory until some are clean: pages which wait for this process. It is a property of
// threads, which those that they start inherit. The capability that it takes is given up.
func becomeFlusher() error {
	if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0, 0); errno != 0 {
		return errno
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&head, &sets[0]); err != nil {
		return err
	}
	const without = ^uint32(1 << unix.CAP_SYS_RESOURCE)
	sets[0].Effective &= without
	sets[0].Permitted &= without
	sets[0].Inheritable &= without
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&sets[0])), 0); errno != 0 {
		return errno
	}
	return nil
}

// flusherWarning is for whoever attaches a disk as a device of this machine, where that was not possible.
const flusherWarning = "the daemon has not the right (CAP_SYS_RESOURCE) to write without waiting for other dirty pages: " +
	"a mounted device may stand still when much is written to it; start the daemon as root, or as its systemd unit does"
