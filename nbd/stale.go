package nbd

import (
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nbdcrypt/nbd/internal/wire"
)

// staleTime is how long a request may have waited before it is asked whether its client is still there. No client gives up sooner than that, and
// what is served faster pays nothing.
const staleTime = 500 * time.Millisecond

// errStale is why a request is not served. Nobody hears it.
var errStale = errors.New("it waited long, and its client has hung up")

// stale tells that a request waited long and whoever sent it has hung up. A kernel that gets no answer in time takes the connection for dead and
// sends the same on another; later it writes something newer there. What lay here meanwhile, because the process was stopped or the storage slow, must
// not be written over that.
func (s *session) stale(began time.Duration) bool {
	return clock()-began > staleTime && hungUp(s.conn.socket)
}

// execute runs a request on the device, unless nobody waits for it any more.
func (s *session) execute(r wire.Request, data []byte, began time.Duration) error {
	if s.stale(began) {
		return errStale
	}
	return s.export.execute(r, data)
}

// hungUp tells whether the other end of a connection is gone, while there is input of it still.
func hungUp(nc net.Conn) (gone bool) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	raw.Control(func(fd uintptr) {
		list := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(list, 0)
		gone = err == nil && n > 0
	})
	return gone
}
