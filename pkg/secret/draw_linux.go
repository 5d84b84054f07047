package secret

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// draw fills b by the system call itself. Package rand and x/sys take the kernel's shortcut where there is one (vgetrandom of vdso(7)),
// which keeps the bytes that it will hand out next in ordinary memory: keys before they are made.
func draw(b []byte) error {
	for len(b) > 0 {
		n, _, errno := unix.Syscall(unix.SYS_GETRANDOM, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0)
		switch errno {
		case 0:
			b = b[n:]
		case unix.EINTR:
		default:
			return errno
		}
	}
	return nil
}
