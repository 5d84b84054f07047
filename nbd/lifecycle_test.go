package nbd_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdtest"
)

// holding serves a device whose writes wait until release is closed; entered gets a token for each that waits.
func holding(t testing.TB) (h *house, e *nbd.Export, entered, release chan struct{}, touched *atomic.Int64) {
	t.Helper()
	entered, release, touched = make(chan struct{}, 1000), make(chan struct{}), new(atomic.Int64)
	dev := &nbdtest.Hooked{Full: nbdtest.NewMemory(diskSize), Before: func(op nbdtest.Op, _, _ int64) error {
		touched.Add(1)
		if op == nbdtest.Write {
			entered <- struct{}{}
			<-release
		}
		return nil
	}}
	e = nbd.NewExport("vol", waiting{dev, dev, dev}, nbd.Options{})
	return serve(t, nbdtest.NewExports(e)), e, entered, release, touched
}

// waiting hides that a device can tell what would wait, so that all of its calls are for workers.
type waiting struct {
	nbd.Device
	nbd.Trimmer
	nbd.Zeroer
}

func TestNBD19_DrainWaitsForWhatIsInFlight(t *testing.T) {
	h, e, entered, release, touched := holding(t)
	c := h.enter(t, "vol")
	c.send(request{command: cmdWrite, cookie: 1, length: 1}.bytes(9))
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Drain(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("Drain did not wait: %v", err)
	}
	c.do(request{command: cmdFlush, cookie: 2}, eshutdown)
	drained := make(chan error, 1)
	go func() { drained <- e.Drain(context.Background()) }()
	close(release)
	c.expect(1, ok)
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
	// From here on the device belongs to its owner again, whatever clients ask.
	before := touched.Load()
	c.do(request{command: cmdRead, length: 512}, eshutdown)
	c.do(request{command: cmdWrite, length: 512}, eshutdown, make([]byte, 512)...)
	c.do(request{command: cmdTrim, length: 512}, eshutdown)
	c.do(request{command: cmdZeroes, length: 512}, eshutdown)
	c.do(request{command: cmdFlush}, eshutdown)
	h.connect(t, fixedFlags).want(optGo, ask("vol"), repErrShutdown)
	h.connect(t, fixedFlags).want(optInfo, ask("vol"), repErrShutdown)
	if after := touched.Load(); after != before {
		t.Errorf("the device was touched %d times after Drain", after-before)
	}
	if e.Clients() != 1 {
		t.Errorf("%d clients", e.Clients())
	}
}

func TestNBD19_ConnectionsEndSomeTimeAfterDrain(t *testing.T) {
	e := disk("vol")
	e.SetLinger(50 * time.Millisecond)
	h := serve(t, nbdtest.NewExports(e))
	c := h.enter(t, "vol")
	if err := e.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.closed()
	eventually(t, "no client is counted", func() bool { return e.Clients() == 0 })
}

func TestNBD19_OtherExportsDoNotNotice(t *testing.T) {
	gone := disk("gone")
	h := serve(t, nbdtest.NewExports(gone, disk("stays")))
	c := h.enter(t, "stays")
	if err := gone.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.lives()
}

func TestDrainIsNotHeldByAClientThatDoesNotRead(t *testing.T) {
	e := disk("vol")
	e.SetLinger(50 * time.Millisecond)
	h := serve(t, nbdtest.NewExports(e))
	greedy := h.enter(t, "vol")
	for i := range uint64(200) { // far more than the socket and the queue hold
		greedy.send(request{command: cmdRead, cookie: i, length: diskSize}.bytes())
	}
	other := h.enter(t, "vol")
	other.lives()
	if err := e.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	other.closed()
	eventually(t, "the stalled client is cut off", func() bool { return e.Clients() == 0 })
	if e.Kept() != 0 {
		t.Errorf("%d bytes are kept after Drain", e.Kept())
	}
}

func TestDrainIsNotHeldByHalfAWrite(t *testing.T) {
	e := disk("vol")
	h := serve(t, nbdtest.NewExports(e))
	half := h.enter(t, "vol")
	half.send(request{command: cmdWrite, length: 1 << 20}.bytes(make([]byte, 1<<19)...))
	other := h.enter(t, "vol")
	other.lives()
	if err := e.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	half.send(make([]byte, 1<<19))
	half.expect(0, eshutdown)
}

func TestCloseCutsConnections(t *testing.T) {
	e := disk("vol")
	h := serve(t, nbdtest.NewExports(e))
	c := h.enter(t, "vol")
	e.Close()
	c.closed()
}

func TestHalfAWriteIsNeverWritten(t *testing.T) {
	dev := nbdtest.NewMemory(diskSize)
	e := nbd.NewExport("vol", dev, nbd.Options{})
	h := serve(t, nbdtest.NewExports(e))
	c := h.enter(t, "vol")
	c.send(request{command: cmdWrite, length: 4096}.bytes(bytes.Repeat([]byte{7}, 4095)...))
	c.nc.Close()
	eventually(t, "the client is gone", func() bool { return e.Clients() == 0 })
	got := make([]byte, 4096)
	if dev.ReadAt(got, 0); !bytes.Equal(got, make([]byte, 4096)) {
		t.Error("part of a write that never arrived whole was written")
	}
}

// TestHalfAPieceIsNeverWritten: of a long write whose client is gone in the middle there are whole pieces, and nothing
// of the one that did not arrive.
func TestHalfAPieceIsNeverWritten(t *testing.T) {
	for name, waits := range map[string]bool{"by the loop": false, "by workers": true} {
		t.Run(name, func(t *testing.T) {
			var seen notes
			dev := &nbdtest.Hooked{Full: nbdtest.NewMemory(diskSize), Before: seen.take}
			e := nbd.NewExport("vol", dev, nbd.Options{})
			if waits {
				e = nbd.NewExport("vol", waiting{dev, dev, dev}, nbd.Options{})
			}
			c := serve(t, nbdtest.NewExports(e)).enter(t, "vol")
			const sent = 500_000
			c.send(request{command: cmdWrite, length: diskSize}.bytes(bytes.Repeat([]byte{7}, sent)...))
			c.nc.Close()
			eventually(t, "the client is gone", func() bool { return e.Clients() == 0 })
			got, end := make([]byte, diskSize), 0
			for dev.ReadAt(got, 0); got[end] == 7; end++ {
			}
			if end%4096 != 0 || end == 0 || !bytes.Equal(got[end:], make([]byte, diskSize-end)) {
				t.Errorf("%d bytes of %d were written: %v", end, sent, seen.taken())
			}
			if e.Stats().InFlight != 0 {
				t.Errorf("%d requests are in flight for ever", e.Stats().InFlight)
			}
		})
	}
}

func TestHalfCloseStillGetsAnswers(t *testing.T) {
	h, _, entered, release, _ := holding(t)
	c := h.enter(t, "vol")
	c.send(request{command: cmdWrite, cookie: 1, length: 1}.bytes(9))
	<-entered
	c.nc.CloseWrite()
	close(release)
	c.expect(1, ok)
	c.closed()
}

func TestAClientVanishesWithWritesInFlight(t *testing.T) {
	h, e, entered, release, _ := holding(t)
	c := h.enter(t, "vol")
	for i := range uint64(40) {
		c.send(request{command: cmdWrite, cookie: i, offset: i, length: 1}.bytes(9))
	}
	<-entered
	c.nc.Close()
	other := h.enter(t, "vol")
	other.lives()
	close(release)
	eventually(t, "the client is counted out", func() bool { return e.Clients() == 1 })
	if err := e.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestShutdownAnswersWhatWasRead(t *testing.T) {
	h, _, entered, release, _ := holding(t)
	c := h.enter(t, "vol")
	idle, shaking := h.enter(t, "vol"), h.connect(t, fixedFlags)
	c.send(request{command: cmdWrite, cookie: 1, length: 1}.bytes(9))
	<-entered
	short, cancel := context.WithCancel(t.Context())
	cancel()
	go func() {
		idle.closed()
		shaking.closed()
		close(release)
	}()
	done := make(chan error, 1)
	go func() { done <- h.server.Shutdown(t.Context()) }()
	c.expect(1, ok)
	c.closed()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := h.server.Shutdown(short); err != nil && !errors.Is(err, context.Canceled) {
		t.Error("a second Shutdown:", err)
	}
	if _, err := net.Dial("unix", h.path); err == nil {
		t.Error("the listener is still there")
	}
}

func TestShutdownWaitsForASlowDevice(t *testing.T) {
	h, _, entered, release, _ := holding(t)
	const finishTime = 10 * time.Millisecond
	h.server.SetFinishTime(finishTime)
	c, idle := h.enter(t, "vol"), h.enter(t, "vol")
	c.send(request{command: cmdWrite, cookie: 1, length: 1}.bytes(9))
	<-entered
	done := make(chan error, 1)
	go func() { done <- h.server.Shutdown(t.Context()) }()
	idle.closed()
	began := time.Now()
	eventually(t, "the client's time would be over", func() bool { return time.Since(began) > 3*finishTime })
	close(release)
	c.expect(1, ok)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestShutdownIsBounded(t *testing.T) {
	h, _, entered, release, _ := holding(t)
	c := h.enter(t, "vol")
	c.send(request{command: cmdWrite, cookie: 1, length: 1}.bytes(9))
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := h.server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error("a hung device did not stop Shutdown from claiming success:", err)
	}
	c.closed()
	close(release)
}

func TestServeEndsWithItsContext(t *testing.T) {
	server := nbd.NewServer(nbdtest.NewExports(disk("vol")), slog.New(slog.DiscardHandler))
	h := serveWith(t, server)
	l, err := net.Listen("unix", h.path+"2")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, l, nbd.Entrance{}) }()
	h2 := &house{server, h.path + "2"}
	c := h2.enter(t, "vol")
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	c.lives()
	h.enter(t, "vol").lives()
	if err := server.Serve(t.Context(), refusing{}, nbd.Entrance{}); !errors.Is(err, syscall.EBADF) {
		t.Error("a broken listener:", err)
	}
}

// refusing is a listener that is broken.
type refusing struct{ net.Listener }

func (refusing) Accept() (net.Conn, error) {
	return nil, &net.OpError{Op: "accept", Err: syscall.EBADF}
}
func (refusing) Close() error { return nil }

// exhausted is a listener that fails once for want of descriptors.
type exhausted struct {
	net.Listener
	once sync.Once
}

func (l *exhausted) Accept() (nc net.Conn, err error) {
	l.once.Do(func() { err = &net.OpError{Op: "accept", Err: syscall.EMFILE} })
	if err != nil {
		return nil, err
	}
	return l.Listener.Accept()
}

func TestServeOutlivesAWantOfDescriptors(t *testing.T) {
	server := nbd.NewServer(nbdtest.NewExports(disk("vol")), slog.New(slog.DiscardHandler))
	h := serveWith(t, server)
	l, err := net.Listen("unix", h.path+"2")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { served <- server.Serve(ctx, &exhausted{Listener: l}, nbd.Entrance{}) }()
	h2 := &house{server, h.path + "2"}
	h2.enter(t, "vol").lives()
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// bursting is exports that panic.
type bursting struct{ nbd.Exports }

func TestAPanicInExportsEndsOneConnection(t *testing.T) {
	h := serve(t, bursting{})
	c := h.connect(t, fixedFlags)
	c.option(optGo, ask("vol"))
	c.closed()
	h.connect(t, fixedFlags).want(optAbort, nil, repAck)
}

func TestMemoryIsKeptUntilTheLastClientLeaves(t *testing.T) {
	h, e := hooked(t, func(op nbdtest.Op, off, _ int64) error {
		if op == nbdtest.Read && off > 0 {
			return eio
		}
		return nil
	})
	c := h.enter(t, "vol")
	c.do(request{command: cmdWrite, length: 1 << 16}, ok, make([]byte, 1<<16)...)
	eventually(t, "something is kept after a write", func() bool { return e.Kept() > 0 })
	c.do(request{command: cmdRead, offset: 1, length: 1 << 19}, eio)
	eventually(t, "the memory of a read that failed is kept", func() bool { return e.Kept() >= 1<<19 })
	c.nc.Close()
	eventually(t, "nothing is kept", func() bool { return e.Kept() == 0 })
}

func TestNothingIsKeptAfterDrain(t *testing.T) {
	e := disk("vol")
	h := serve(t, nbdtest.NewExports(e))
	c := h.enter(t, "vol")
	c.send(request{command: cmdRead, cookie: 1, length: diskSize}.bytes())
	c.expect(1, ok) // and the data, more than a socket holds, is still on its way
	if err := e.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.read(diskSize)
	c.do(request{command: cmdFlush}, eshutdown)
	if e.Kept() != 0 || e.Clients() != 1 {
		t.Errorf("%d bytes are kept, %d clients", e.Kept(), e.Clients())
	}
}
