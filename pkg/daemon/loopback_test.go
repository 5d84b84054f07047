package daemon

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"nbdcrypt/nbd"
)

// pair is a TCP connection inside this machine.
func pair(t *testing.T, listen, dial string) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if client, err = net.Dial("tcp", net.JoinHostPort(dial, port)); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

func TestLoopbackPeerIsTheUser(t *testing.T) {
	for _, at := range [][2]string{{"127.0.0.1:0", "127.0.0.1"}, {"127.0.0.9:0", "127.0.0.9"}, {"[::]:0", "127.0.0.1"}, {"[::1]:0", "::1"}} {
		client, server := pair(t, at[0], at[1])
		peer, err := loopbackPeer(server)
		if err != nil || peer != (nbd.Peer{UID: uint32(os.Getuid()), GID: nbd.NoUID}) {
			t.Errorf("%s to %s: %+v, %v", at[1], at[0], peer, err)
		}
		// What is left of a socket is root's in the kernel's list.
		client.Close()
		if peer, err := loopbackPeer(server); err == nil {
			t.Errorf("a client that has gone is %+v", peer)
		}
	}
	if peer, err := loopbackPeer(&net.UnixConn{}); err == nil {
		t.Errorf("a unix socket is %+v", peer)
	}
}

// Who breaks off a connection that nobody has looked at yet, and leaves its address to somebody else, does not pass for them.
func TestLoopbackPeerIsNotTheNextOne(t *testing.T) {
	l, err := address{network: onTCP, host: "127.0.0.1"}.listen()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	first, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Write([]byte("what the next one would have said")); err != nil {
		t.Fatal(err)
	}
	_ = first.(*net.TCPConn).SetLinger(0)
	first.Close()
	next, err := (&net.Dialer{LocalAddr: first.LocalAddr()}).Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	for _, known := range []bool{false, true} {
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		if peer, err := loopbackPeer(server); (err == nil) != known {
			t.Errorf("%+v, %v; known: %v", peer, err, known)
		}
	}
}

// The kernel's lists, as a machine with bytes in the other order would not write them.
func TestSearchList(t *testing.T) {
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	client, server := procAddress(netip.MustParseAddrPort("127.0.0.1:4660"), false), procAddress(netip.MustParseAddrPort("127.0.0.1:10809"), false)
	line := func(from, to, state, uid, inode string) string {
		return "   1: " + from + " " + to + " " + state + " 00000000:00000000 00:00000000 00000000 " + uid + "        0 " + inode + " 1 0000000000000000 20 4 30 10 -1\n"
	}
	for name, c := range map[string]struct {
		text string
		uid  uint32
		ok   bool
	}{
		"there":            {head + line(server, client, "01", "0", "7") + line(client, server, "01", "1000", "8"), 1000, true},
		"root's":           {head + line(client, server, "01", "0", "8"), 0, true},
		"the server's own": {head + line(server, client, "01", "1000", "7"), 0, false},
		"time wait":        {head + line(client, server, "06", "0", "0"), 0, false},
		"closing":          {head + line(client, server, "04", "0", "0"), 0, false},
		"closed halfway":   {head + line(client, server, "05", "1000", "9"), 0, false},
		"without a file":   {head + line(client, server, "01", "0", "0"), 0, false},
		"no number":        {head + line(client, server, "01", "x", "9"), 0, false},
		"nobody's":         {head + line(client, server, "01", "4294967295", "9"), 0, false},
		"cut short":        {head + line(client, server, "01", "1000", "9")[:60], 0, false},
		"empty":            {head, 0, false},
	} {
		uid, err := searchList(strings.NewReader(c.text), client, server)
		if (err == nil) != c.ok || uid != c.uid {
			t.Errorf("%s: %d, %v", name, uid, err)
		}
	}
}
