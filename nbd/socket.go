package nbd

import (
	"net"
	"syscall"
)

// sendBuffer is how much of what is sent to a unix socket the kernel keeps until the client reads it: enough for several
// pieces, so that the loop is at the next one while the client still copies the last. A client that stops to read pins that
// much of the kernel's memory. TCP sees to its buffers by itself.
const sendBuffer = 1 << 20

// widen raises the send buffer of a unix socket, past the system's limit where the process may. Where it can't be raised
// all works as before.
func widen(nc net.Conn) {
	uc, ok := nc.(*net.UnixConn)
	if !ok {
		return
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		if syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUFFORCE, sendBuffer) != nil {
			syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, sendBuffer)
		}
	})
}
