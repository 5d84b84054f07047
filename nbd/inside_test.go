package nbd

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"nbdcrypt/nbd/internal/wire"
)

func TestGateIsEmptyOnceAndForAll(t *testing.T) {
	for range 200 {
		g := newGate()
		var inside atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for g.enter() {
					inside.Add(1)
					inside.Add(-1)
					g.leave()
				}
			})
		}
		g.shut()
		<-g.empty
		if n := inside.Load(); n != 0 {
			t.Fatalf("%d inside an empty gate", n)
		}
		wg.Wait()
		if g.enter() || !g.isShut() {
			t.Fatal("a shut gate let somebody in")
		}
		g.shut()
	}
}

func TestBufferClasses(t *testing.T) {
	var p buffers
	for _, n := range []int{0, 1, 4095, 4096, 4097, 8192, 8193, 1 << 20, 1<<20 + 1, 64 << 20} {
		b := p.get(n)
		if len(b) != n || cap(b) < n || cap(b) > max(4096, 2*n) {
			t.Errorf("get(%d) has %d of %d bytes", n, len(b), cap(b))
		}
		p.put(b)
		if again := p.get(n); len(again) != n {
			t.Errorf("get(%d) again has %d bytes", n, len(again))
		}
	}
}

func TestBuffersAreWiped(t *testing.T) {
	var p buffers
	dirty := func(n int) []byte {
		b := p.get(n)
		for i := range b {
			b[i] = 0xaa
		}
		return b
	}
	clean := func(what string, b []byte) {
		t.Helper()
		if b = b[:cap(b)]; !bytes.Equal(b, make([]byte, len(b))) {
			t.Errorf("%s still holds data", what)
		}
	}
	tooLarge := dirty(32 << 20)
	p.put(tooLarge)
	clean("a buffer that is too large to keep", tooLarge)
	kept, used := dirty(5000), dirty(5000)
	p.put(kept)
	if p.kept != cap(kept) {
		t.Fatalf("%d bytes are kept", p.kept)
	}
	p.close()
	clean("a buffer that was kept", kept)
	p.put(used[:10])
	clean("a buffer that came back to a closed pool", used)
	if p.kept != 0 {
		t.Errorf("a closed pool keeps %d bytes", p.kept)
	}
}

// TestIdleBuffersAreDropped: what was needed in between stays once more.
func TestIdleBuffersAreDropped(t *testing.T) {
	var p buffers
	a, b, c := p.get(5000), p.get(5000), p.get(1<<20)
	for _, buf := range [][]byte{a, b, c} {
		buf[0] = 1
		p.put(buf)
	}
	p.trim()
	if p.kept == 0 || a[0]+b[0]+c[0] != 3 {
		t.Fatal("what has just come back is dropped")
	}
	p.put(p.get(5000))
	p.trim()
	if p.kept != 8192 || c[0] != 0 {
		t.Errorf("%d bytes are kept", p.kept)
	}
	p.trim()
	if p.kept != 0 || p.lent != 0 || a[0]+b[0]+c[0] != 0 {
		t.Errorf("%d bytes are kept, %d lent", p.kept, p.lent)
	}
}

func TestBudgetBounds(t *testing.T) {
	b := newBudget(100, nil)
	b.take(100)
	taken := make(chan struct{})
	go func() {
		b.take(60)
		close(taken)
	}()
	b.give(50)
	select {
	case <-taken:
		t.Fatal("60 of 50 were taken")
	default:
	}
	b.give(50)
	<-taken
	if used := b.used.Load(); used != 60 {
		t.Errorf("%d are used", used)
	}
}

func TestSource(t *testing.T) {
	stream := make([]byte, 5*sourceSize)
	for i := range stream {
		stream[i] = byte(i * 7)
	}
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"whole": func(r io.Reader) io.Reader { return r }, "halves": iotest.HalfReader, "bytes": iotest.OneByteReader,
		"data with EOF": iotest.DataErrReader,
	} {
		s := newSource(wrap(bytes.NewReader(stream)))
		at := 0
		for _, n := range []int{0, 1, 27, sourceSize - 1, sourceSize, 3, sourceSize + 1, 100} {
			p := make([]byte, n)
			if err := s.read(p); err != nil || !bytes.Equal(p, stream[at:at+n]) {
				t.Fatalf("%s: %d bytes at %d: %v", name, n, at, err)
			}
			if err := s.skip(5); err != nil {
				t.Fatal(err)
			}
			at += n + 5
		}
		rest := make([]byte, len(stream)-at)
		if err := s.read(rest); err != nil || !bytes.Equal(rest, stream[at:]) {
			t.Fatal(name, err)
		}
		if err := s.read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%s: at the end: %v", name, err)
		}
		s.wipe()
		if !bytes.Equal(s.small, make([]byte, sourceSize)) {
			t.Errorf("%s: not wiped", name)
		}
	}
	cut := newSource(bytes.NewReader(stream[:10]))
	if err := cut.read(make([]byte, 11)); err != io.ErrUnexpectedEOF {
		t.Error("an end in the middle:", err)
	}
	if err := newSource(bytes.NewReader(nil)).skip(1); err != io.ErrUnexpectedEOF {
		t.Error("an end in a skip:", err)
	}
}

func TestNBD08_OneUserDoesNotTakeAllConnections(t *testing.T) {
	s := NewServer(nil, slog.New(slog.DiscardHandler))
	s.limit, s.userLimit = 10, 2
	admit := func(uid uint32) *conn {
		c := &conn{server: s, peer: Peer{UID: uid}}
		if s.admit(c) != nil {
			return nil
		}
		return c
	}
	first := admit(1000)
	if first == nil || admit(1000) == nil || admit(1000) != nil {
		t.Error("a user has not exactly two connections")
	}
	if admit(1001) == nil {
		t.Error("another user is shut out")
	}
	s.dismiss(first)
	if admit(1000) == nil {
		t.Error("there is no room after one has left")
	}
	for uid := range uint32(10) {
		if got := admit(2000+uid) != nil; got != (uid < 5) {
			t.Errorf("connection %d of users who are not root: %v", 3+uid, got)
		}
	}
	if admit(0) == nil || admit(0) == nil {
		t.Error("users have taken root's connections")
	}
	if admit(0) != nil {
		t.Error("an eleventh connection of ten")
	}
}

func TestNobodyJoinsADrainedExport(t *testing.T) {
	e := NewExport("vol", nil, Options{})
	first, second := new(conn), new(conn)
	if !e.join(first) || e.Clients() != 1 {
		t.Fatal("an export turns its clients away")
	}
	e.part(first)
	if err := e.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e.join(second) || e.Clients() != 0 {
		t.Error("a drained export took a client")
	}
}

func TestWhatWasReadIsWipedWithItsConnection(t *testing.T) {
	ours, theirs := net.Pipe()
	c := newConn(NewServer(nil, slog.New(slog.DiscardHandler)), ours, Peer{}, Entrance{})
	done := make(chan struct{})
	go func() {
		c.serve(t.Context())
		close(done)
	}()
	if _, err := io.ReadFull(theirs, make([]byte, wire.GreetingSize)); err != nil {
		t.Fatal(err)
	}
	if _, err := theirs.Write(append([]byte{0, 0, 0, 3}, "plaintext"...)); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	<-done
	if !bytes.Equal(c.in.buf, make([]byte, sourceSize)) {
		t.Errorf("%q is left", bytes.Trim(c.in.buf, "\x00"))
	}
}

// says is what a device says of its block sizes.
type says struct {
	Device
	minimum, preferred uint32
}

func (s says) BlockSizes() (uint32, uint32) { return s.minimum, s.preferred }

func TestNBD12_BlockSizesAreWhatTheProtocolAllows(t *testing.T) {
	for said, want := range map[[2]uint32][2]uint32{
		{512, 4096}: {512, 4096}, {4096, 4096}: {4096, 4096}, {4096, 512}: {4096, 4096}, {1, 65536}: {1, 65536},
		{0, 0}: {512, 4096}, {1000, 5000}: {512, 4096}, {1 << 20, 1 << 31}: {512, 4096},
	} {
		e := NewExport("vol", says{nil, said[0], said[1]}, Options{})
		if minimum, preferred := e.blockSizes(1 << 20); minimum != want[0] || preferred != want[1] {
			t.Errorf("of %v the client is told %d and %d", said, minimum, preferred)
		}
	}
}
