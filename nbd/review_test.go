package nbd_test

import (
	"log/slog"
	"net"
	"sync/atomic"
	"testing"

	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdtest"
)

// TestReviewEndsWhoIsAdmittedNoMore: who may not have the export open any more is disconnected, once answered; others stay, and nobody
// who is not admitted joins.
func TestReviewEndsWhoIsAdmittedNoMore(t *testing.T) {
	var shut atomic.Uint32 // the uid that is not admitted
	e := nbd.NewExport("vol", nbdtest.NewMemory(diskSize), nbd.Options{Admits: func(p nbd.Peer) bool { return p.UID != shut.Load() }})
	var uid atomic.Uint32
	h := serveBy(t, nbd.NewServer(nbdtest.NewExports(e), slog.New(slog.DiscardHandler)),
		nbd.Entrance{Peer: func(net.Conn) (nbd.Peer, error) { return nbd.Peer{UID: uid.Add(1)}, nil }})
	first, second := h.enter(t, "vol"), h.enter(t, "vol")
	if n := e.Review(); n != 0 {
		t.Errorf("%d of those who are admitted ended", n)
	}
	shut.Store(1)
	first.do(request{command: cmdFlush, cookie: 1}, ok)
	if n := e.Review(); n != 1 {
		t.Errorf("%d connections ended, not one", n)
	}
	first.closed()
	eventually(t, "the connection is counted out", func() bool { return e.Clients() == 1 })
	second.do(request{command: cmdFlush, cookie: 1}, ok)
	shut.Store(3)
	third := h.connect(t, fixedFlags)
	third.want(optGo, ask("vol"), repErrShutdown)
	if n := e.Clients(); n != 1 {
		t.Errorf("%d clients", n)
	}
}
