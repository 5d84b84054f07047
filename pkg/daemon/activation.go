package daemon

import (
	"errors"
	"net"
	"os"
	"path/filepath"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// What a socket unit's FileDescriptorName= may say of its sockets. Without it the kind of socket tells.
const (
	activatedNBD     = "nbd"
	activatedTLS     = "nbd-tls"
	activatedControl = "control"
)

// activated is a socket that the service manager has made. It stays when the daemon ends: nothing of it is removed or changed.
type activated struct {
	listener net.Listener
	address  address
	control  bool
}

// activatedSockets takes over what the service manager gave (sd_listen_fds(3)).
func activatedSockets() (list []activated, err error) {
	for _, file := range activation.Files(true) {
		a, e := takeSocket(file)
		if e != nil {
			err = errors.Join(err, refusal.New(refusal.Usage, "see the ListenStream= lines of the socket unit, and that it has no Accept=yes",
				"the socket %s of the service manager can't be served: %w", file.Name(), e))
			continue
		}
		list = append(list, a)
	}
	if err != nil {
		for _, a := range list {
			_ = a.listener.Close()
		}
	}
	return list, err
}

// takeSocket tells what a socket is for.
func takeSocket(file *os.File) (activated, error) {
	l, err := listenerOf(file)
	if err != nil {
		return activated{}, err
	}
	a := activated{listener: l}
	switch at := l.Addr().(type) {
	case *net.UnixAddr:
		a.address = address{network: onUnix, path: at.Name}
		a.control = filepath.Base(at.Name) == control.SocketControl
	case *net.TCPAddr:
		a.address = address{network: onTCP, host: at.IP.String(), port: uint32(at.Port), tls: true}
	case vsockAddr:
		a.address = address{network: onVsock, cid: at.cid, port: at.port}
	}
	switch file.Name() {
	case activatedNBD:
		a.control, a.address.tls = false, false
	case activatedTLS:
		a.control, a.address.tls = false, true
	case activatedControl:
		a.control = true
	}
	if a.control && a.address.network != onUnix {
		return activated{}, errors.Join(errors.New("the control socket has to be a unix socket"), l.Close())
	}
	return a, nil
}

// listenerOf makes a listener of a socket that listens; the file is its own then, or closed. What is no such socket may be no file of ours.
func listenerOf(file *os.File) (net.Listener, error) {
	fd := int(file.Fd())
	if listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || listens == 0 {
		return nil, errors.Join(errors.New("it does not listen for connections"), err)
	}
	if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_STREAM {
		return nil, errors.Join(errors.New("it is no stream socket (ListenStream=)"), err, file.Close())
	}
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if family != unix.AF_VSOCK {
		l, err := net.FileListener(file)
		return l, errors.Join(err, file.Close())
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(own, true); err != nil {
		return nil, errors.Join(err, unix.Close(own))
	}
	return newVsockListener(os.NewFile(uintptr(own), onVsock))
}
