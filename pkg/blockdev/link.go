package blockdev

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"nbdcrypt/nbd/nbdclient"
	"nbdcrypt/pkg/refusal"
)

// link is one connection. The kernel reads and writes its socket; we hold it to see when it ends.
type link struct {
	socket *os.File
	info   nbdclient.Info
	owner  uint32 // the user at its other end
	told   bool   // that it ended

	hearing hearing
	ending  bool // for another's sake
}

// open makes one connection, up to where requests begin.
func open(ctx context.Context, c Config) (*link, error) {
	nc, err := new(net.Dialer).DialContext(ctx, "unix", c.Socket)
	if err != nil {
		return nil, fmt.Errorf("connecting to the server of %s: %w", c.Export, err)
	}
	defer nc.Close()
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	info, err := nbdclient.Handshake(nc, c.Export)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("opening export %s: %w", c.Export, err)
	}
	socket, err := nc.(*net.UnixConn).File()
	if err != nil {
		return nil, err
	}
	peer, err := unix.GetsockoptUcred(int(socket.Fd()), unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	widen(int(socket.Fd()))
	return &link{socket: socket, info: info, owner: peer.Uid}, nil
}

// sendBuffer holds all that the kernel may have to send at a time: 128 requests of 128 KiB, in pages that count twice, and those of other connections
// that have died. It must never be full: who waits there is interrupted by a signal, and a request of which half is sent goes on under
// another number then in kernels without "nbd: fix partial sending", so that its answer may be taken for another's. That was read in the kernel's
// history and never seen here. What is not there takes no memory.
const sendBuffer = 64 << 20

// widen raises a socket's send buffer as far as we may; where we may not, all works as before.
func widen(fd int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
	}
}

// ended tells which of the links have ended, by either side, or waits for that up to some milliseconds.
func ended(links []*link, wait int) (list []*link, err error) {
	polls := make([]unix.PollFd, len(links))
	for i, l := range links {
		// Data alone wakes nobody: it is the kernel's to read.
		polls[i] = unix.PollFd{Fd: int32(l.socket.Fd()), Events: unix.POLLRDHUP}
	}
	if _, err := unix.Poll(polls, wait); err != nil && !errors.Is(err, unix.EINTR) {
		return nil, err
	}
	for i, p := range polls {
		if p.Revents != 0 {
			list = append(list, links[i])
		}
	}
	return list, nil
}

// taken tells whether the kernel's driver has taken the socket: it sets the time that sending may take, which nobody else does. It drops
// one without a word where it has not noticed yet that another is dead.
func (l *link) taken() (bool, error) {
	limit, err := unix.GetsockoptTimeval(int(l.socket.Fd()), unix.SOL_SOCKET, unix.SO_SNDTIMEO)
	return err == nil && (limit.Sec != 0 || limit.Usec != 0), err
}

// like refuses a connection to something else than what the device stands for: the kernel would not notice.
func (d *Device) like(l *link) error {
	const hint = "disconnect the device, and attach the disk again"
	switch {
	case l.owner != d.owner:
		return refusal.New(refusal.Denied, hint, "%s is of a server of user %d, and user %d serves %s now", d.config.Path, d.owner, l.owner, d.config.Export)
	case l.info.Flags != d.flags || l.info.Size < d.size:
		return refusal.New(refusal.Failed, hint, "export %s is not as it was: %d bytes (flags %#x) instead of %d (%#x)",
			d.config.Export, l.info.Size, l.info.Flags, d.size, d.flags)
	}
	return nil
}
