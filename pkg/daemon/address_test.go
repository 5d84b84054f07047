package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdtest"
	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/refusal"
)

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]address{
		"nbd+unix:///?socket=/a/b%20c": {network: onUnix, path: "/a/b c"},
		"nbds+unix:///?socket=/a":      {network: onUnix, path: "/a", tls: true},
		"nbd://127.0.0.1":              {network: onTCP, host: "127.0.0.1", port: 10809},
		"nbds://[::]:99":               {network: onTCP, host: "::", port: 99, tls: true},
		"nbds://example.org/":          {network: onTCP, host: "example.org", port: 10809, tls: true},
		"nbds://:7":                    {network: onTCP, port: 7, tls: true},
		"nbd+vsock://any:70000":        {network: onVsock, cid: unix.VMADDR_CID_ANY, port: 70000},
		"nbds+vsock://2":               {network: onVsock, cid: 2, port: 10809, tls: true},
	} {
		a, err := parseAddress(text)
		if err != nil || a != want {
			t.Errorf("%s is %+v (%v)", text, a, err)
		}
		if again, err := parseAddress(a.String()); err != nil || again != a {
			t.Errorf("%s is said as %s, which is %+v (%v)", text, a, again, err)
		}
	}
	for _, text := range []string{"", "x", "nbd", "http://127.0.0.1", "nbdsx://127.0.0.1", "nbd+tcp://127.0.0.1", "nbd+unix:///", "nbd+unix:///disk?socket=/a",
		"nbd+unix://host/?socket=/a", "nbds://host/disk", "nbds://host?socket=/a", "nbds://host:65536", "nbds://host:x", "nbd+vsock://x:1", "nbd+vsock://:1",
		"nbd+vsock://4294967296:1", "nbd+vsock://2:4294967296", "nbd+ssh://host", "%"} {
		if a, err := parseAddress(text); refusal.CodeOf(err) != refusal.Usage || refusal.From(err).Hint == "" {
			t.Errorf("%q is %+v (%v)", text, a, err)
		}
	}
}

// Only what this machine alone reaches may be served in clear, and only when asked for.
func TestPlainTCPIsRefused(t *testing.T) {
	for text, loopback := range map[string]bool{"nbd://127.0.0.1:0": true, "nbd://127.200.3.4:0": true, "nbd://[::1]:0": true, "nbd://localhost:0": false,
		"nbd://0.0.0.0:0": false, "nbd://[::]:0": false, "nbd://:0": false, "nbd://192.168.0.1:0": false, "nbd://128.0.0.1:0": false, "nbd://example.org:0": false} {
		a, err := parseAddress(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, insecure := range []bool{false, true} {
			d := &Daemon{o: Options{InsecureLoopback: insecure}}
			err := d.furnish(&door{}, nil, a)
			if allowed := loopback && insecure; (err == nil) != allowed || !allowed && (refusal.CodeOf(err) != refusal.Usage || refusal.From(err).Hint == "") {
				t.Errorf("%s, with the flag %v: %v", text, insecure, err)
			}
		}
	}
}

func TestVsock(t *testing.T) {
	l, err := listenVsock(unix.VMADDR_CID_ANY, 0xffffffff) // a port of the system's choice
	if errors.Is(err, unix.EAFNOSUPPORT) {
		t.Skip("this kernel has no vsock")
	}
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { _, err := l.Accept(); ended <- err }()
	if a, is := l.Addr().(vsockAddr); !is || a.port == 0 || a.Network() != "vsock" {
		t.Errorf("it listens at %v", l.Addr())
	}
	l.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
}

// What a vsock connection is made of is a file with time limits; who it is is its address.
func TestVsockConnection(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	other := os.NewFile(uintptr(fds[1]), "other")
	defer other.Close()
	var c net.Conn = &vsockConn{os.NewFile(uintptr(fds[0]), onVsock), vsockAddr{2, 10809}, vsockAddr{7, 99}}
	defer c.Close()
	if peer, err := vsockPeer(c); err != nil || peer != (nbd.Peer{UID: nbd.NoUID, GID: nbd.NoUID, Name: "vsock:7"}) {
		t.Errorf("%+v, %v", peer, err)
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Error(err)
	}
	if n, err := other.Read(make([]byte, 9)); n != 5 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if err := c.SetDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a time limit that has passed: %v", err)
	}
	if _, err := vsockPeer(&net.TCPConn{}); err == nil {
		t.Error("TCP is taken for vsock")
	}
}

// once is a listener that accepts one connection.
type once struct {
	net.Listener
	conns chan net.Conn
	close func()
}

func (l *once) Accept() (net.Conn, error) {
	if nc, is := <-l.conns; is {
		return nc, nil
	}
	return nil, net.ErrClosed
}

func (l *once) Close() error { l.close(); return nil }

// A virtual machine is served, in clear and in TLS, what was opened to it.
func TestVsockIsServed(t *testing.T) {
	a := nbdtest.NewAuthority()
	x := newExports()
	x.add(attachment("default", "vol"), opening{attacher: 1000, allow: []access.Guest{{UID: access.NoUID, Name: "vsock:7"}, {UID: access.NoUID, Name: "cert:vm"}}})
	server := nbd.NewServer(x, slog.New(slog.DiscardHandler))
	config := &tls.Config{Certificates: []tls.Certificate{a.Issue("server", time.Now().Add(time.Hour))}, ClientCAs: a.Pool(), ClientAuth: tls.VerifyClientCertIfGiven}
	for _, c := range []struct {
		cid    uint32
		trusts *nbdtest.Authority
		certs  []tls.Certificate
		want   bool
	}{{7, nil, nil, true}, {7, a, nil, true}, {8, nil, nil, false}, {8, a, nil, false}, {8, a, []tls.Certificate{a.Issue("vm", time.Now().Add(time.Hour))}, true}} {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		ends := [2]net.Conn{}
		for i, fd := range fds {
			ends[i] = &vsockConn{os.NewFile(uintptr(fd), onVsock), vsockAddr{2, 1}, vsockAddr{c.cid, 2}}
		}
		l := &once{conns: make(chan net.Conn, 1)}
		l.close = sync.OnceFunc(func() { close(l.conns) })
		l.conns <- ends[0]
		served := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { served <- server.Serve(ctx, l, nbd.Entrance{Peer: vsockPeer, TLS: config}) }()
		if got := opensOver(t, ends[1], "vol", c.trusts, c.certs...); got != c.want {
			t.Errorf("%d, TLS %v, %d certificates: %v", c.cid, c.trusts != nil, len(c.certs), got)
		}
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
	if err := server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// Sockets of the service manager, as descriptors would bring them.
func TestTakeSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "nbdc")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file := func(network, at, name string) *os.File {
		l, err := net.Listen(network, at)
		if err != nil {
			t.Fatal(err)
		}
		if u, is := l.(*net.UnixListener); is {
			u.SetUnlinkOnClose(false)
		}
		f, err := l.(interface{ File() (*os.File, error) }).File()
		l.Close()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fd, err := unix.Dup(int(f.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		return os.NewFile(uintptr(fd), name)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, c := range []struct {
		network, at, name string
		control, tls      bool
	}{
		{"unix", at("nbd.sock"), "nbdcrypt.socket", false, false},
		{"unix", at("control.sock"), "nbdcrypt.socket", true, false},
		{"unix", at("any"), "control", true, false},
		{"unix", at("tls"), "nbd-tls", false, true},
		{"tcp", "127.0.0.1:0", "nbdcrypt.socket", false, true},
		{"tcp", "[::1]:0", "nbd", false, false},
	} {
		a, err := takeSocket(file(c.network, c.at, c.name))
		if err != nil || a.control != c.control || a.address.tls != c.tls || a.address.network != c.network {
			t.Errorf("%+v is %+v (%v)", c, a, err)
			continue
		}
		a.listener.Close()
		if _, err := os.Lstat(c.at); c.network == "unix" && err != nil {
			t.Errorf("%s went with the daemon: %v", c.at, err)
		}
	}
	if a, err := takeSocket(file("tcp", "127.0.0.1:0", "control")); err == nil {
		t.Errorf("TCP is the control socket: %+v", a)
	}
	if a, err := takeSocket(file("unixpacket", at("packets"), "control")); err == nil {
		t.Errorf("packets are taken for a stream: %+v", a)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	if a, err := takeSocket(os.NewFile(uintptr(fds[0]), "nbd")); err == nil {
		t.Errorf("a connection is listened at: %+v", a)
	}
}
