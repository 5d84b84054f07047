package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"nbdcrypt/nbd"
)

// vsockAddr is an address of vsock(7), by which virtual machines and their host reach each other. The net package does not know it.
type vsockAddr struct{ cid, port uint32 }

func (vsockAddr) Network() string { return onVsock }

func (a vsockAddr) String() string { return fmt.Sprintf("%d:%d", a.cid, a.port) }

// vsockListener accepts connections with the runtime's poller, as a file.
type vsockListener struct {
	file *os.File
	raw  syscall.RawConn
	addr vsockAddr
}

// vsockConn is a connection: what net.Conn wants beside it, a file has.
type vsockConn struct {
	*os.File
	local, remote vsockAddr
}

func (c *vsockConn) LocalAddr() net.Addr  { return c.local }
func (c *vsockConn) RemoteAddr() net.Addr { return c.remote }

func listenVsock(cid, port uint32) (net.Listener, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("vsock: %w", err)
	}
	file := os.NewFile(uintptr(fd), onVsock)
	if err := unix.Bind(fd, &unix.SockaddrVM{CID: cid, Port: port}); err != nil {
		return nil, errors.Join(fmt.Errorf("vsock: %w", err), file.Close())
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		return nil, errors.Join(fmt.Errorf("vsock: %w", err), file.Close())
	}
	return newVsockListener(file)
}

// newVsockListener takes over a file that listens and does not block.
func newVsockListener(file *os.File) (net.Listener, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	var name unix.Sockaddr
	var asked error
	err = raw.Control(func(fd uintptr) { name, asked = unix.Getsockname(int(fd)) })
	vm, is := name.(*unix.SockaddrVM)
	if err = errors.Join(err, asked); err != nil || !is {
		return nil, errors.Join(errors.New("vsock: the socket has no address"), err, file.Close())
	}
	return &vsockListener{file, raw, vsockAddr{vm.CID, vm.Port}}, nil
}

// Accept waits for a connection. Once the listener is closed it returns net.ErrClosed.
func (l *vsockListener) Accept() (net.Conn, error) {
	var fd int
	var from unix.Sockaddr
	var asked error
	err := l.raw.Read(func(s uintptr) bool {
		fd, from, asked = unix.Accept4(int(s), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		return asked != unix.EAGAIN
	})
	if err != nil {
		return nil, net.ErrClosed // nothing else keeps a file from being waited for
	}
	if asked != nil {
		return nil, fmt.Errorf("vsock: %w", asked)
	}
	vm, is := from.(*unix.SockaddrVM)
	if !is {
		return nil, errors.Join(errors.New("vsock: a client without an address"), unix.Close(fd))
	}
	return &vsockConn{os.NewFile(uintptr(fd), onVsock), l.addr, vsockAddr{vm.CID, vm.Port}}, nil
}

func (l *vsockListener) Close() error   { return l.file.Close() }
func (l *vsockListener) Addr() net.Addr { return l.addr }

// vsockPeer names the machine that connected, which its host vouches for. Who it is inside that machine is not known.
func vsockPeer(nc net.Conn) (nbd.Peer, error) {
	c, is := nc.(*vsockConn)
	if !is {
		return nbd.Peer{}, fmt.Errorf("daemon: %v is no vsock address", nc.RemoteAddr())
	}
	return nbd.Peer{UID: nbd.NoUID, GID: nbd.NoUID, Name: "vsock:" + strconv.FormatUint(uint64(c.remote.cid), 10)}, nil
}
