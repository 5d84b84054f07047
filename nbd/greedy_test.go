package nbd_test

import (
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"

	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdtest"
)

// TestNBD12_PayloadInFlightIsBounded: of many large reads only as many are in memory as 64 MiB hold.
func TestNBD12_PayloadInFlightIsBounded(t *testing.T) {
	const large, asked, fit = 30 << 20, 5, 2
	entered, release := make(chan struct{}, asked), make(chan struct{})
	dev := &nbdtest.Hooked{Full: nbdtest.NewMemory(large), Before: func(op nbdtest.Op, _, n int64) error {
		if op == nbdtest.Read && n == large {
			entered <- struct{}{}
			<-release
		}
		return nil
	}}
	h := serve(t, nbdtest.NewExports(nbd.NewExport("vol", dev, nbd.Options{})))
	c, other := h.enter(t, "vol"), h.enter(t, "vol")
	for i := range uint64(asked) {
		c.send(request{command: cmdRead, cookie: i, length: large}.bytes())
	}
	for range fit {
		<-entered
	}
	for range 200 {
		other.lives()
	}
	if len(entered) != 0 {
		t.Error("more than 64 MiB are in flight")
	}
	close(release)
	for range asked {
		if _, errno := c.answered(); errno != ok {
			t.Fatal(errno)
		}
		c.read(large)
	}
}

// asUser serves connections as those of a user who is not root, whoever runs the test.
func asUser(t *testing.T, server *nbd.Server) *house {
	t.Helper()
	h := &house{server: server, path: filepath.Join(t.TempDir(), "s")}
	l, err := net.Listen("unix", h.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go server.Converse(nc, nbd.Peer{UID: 1000}, nbd.Entrance{})
		}
	}()
	return h
}

// TestOneUserDoesNotTakeAllMemory: connections that read much and take no replies hold up to a limit together. Beyond
// it the user's other connections still get on with small requests, and with large ones once there is room.
func TestOneUserDoesNotTakeAllMemory(t *testing.T) {
	const large = 4 << 20
	var reads atomic.Int32
	dev := &nbdtest.Hooked{Full: nbdtest.NewMemory(large), Before: func(op nbdtest.Op, _, n int64) error {
		if op == nbdtest.Read && n == large {
			reads.Add(1)
		}
		return nil
	}}
	server := nbd.NewServer(nbdtest.NewExports(nbd.NewExport("vol", dev, nbd.Options{})), slog.New(slog.DiscardHandler))
	server.SetUserPayload(3 * large)
	h := asUser(t, server)
	greedy, other := h.enter(t, "vol"), h.enter(t, "vol")
	for i := range uint64(8) {
		greedy.send(request{command: cmdRead, cookie: i, length: large}.bytes())
	}
	eventually(t, "the memory is taken", func() bool { return reads.Load() == 3 })
	other.do(request{command: cmdRead, length: large}, syscall.ENOMEM)
	other.do(request{command: cmdWrite, length: large}, ok, make([]byte, large)...) // in small pieces
	other.do(request{command: cmdRead, length: 1 << 20}, ok)
	other.do(request{command: cmdFlush}, ok)
	if n := reads.Load(); n != 3 {
		t.Errorf("%d large reads are in memory", n)
	}
	for range 8 {
		greedy.answered()
		greedy.read(large)
	}
	greedy.lives()
	other.do(request{command: cmdRead, length: large}, ok)
}

func TestNBD12_AClaimedPayloadCostsNothing(t *testing.T) {
	e := disk("vol")
	h := serve(t, nbdtest.NewExports(nbd.NewExport("large", nbdtest.NewMemory(64<<20), nbd.Options{}), e))
	c := h.enter(t, "large")
	other := h.enter(t, "vol")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c.send(request{command: cmdWrite, length: 64 << 20}.bytes(1, 2, 3))
	c.nc.CloseWrite()
	c.closed()
	other.lives()
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
		t.Errorf("%d bytes were allocated for three that came", used)
	}
}

// TestAClientThatCannotReadIsCutOff: by a worker who answers, and by the loop, which does so while it reads.
func TestAClientThatCannotReadIsCutOff(t *testing.T) {
	for name, r := range map[string]request{"by a worker": {command: cmdFlush}, "by the loop": {command: cmdRead, length: 512}} {
		t.Run(name, func(t *testing.T) {
			e := disk("vol")
			h := serve(t, nbdtest.NewExports(e))
			c := h.enter(t, "vol")
			if err := c.nc.CloseRead(); err != nil {
				t.Fatal(err)
			}
			c.send(r.bytes())
			eventually(t, "the client is cut off", func() bool { return e.Clients() == 0 })
		})
	}
}
