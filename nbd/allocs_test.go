package nbd

import (
	"log/slog"
	"net"
	"sync/atomic"
	"syscall"
	"testing"

	"nbdcrypt/nbd/internal/wire"
)

// still is a device that does nothing, and allocates nothing for it.
type still struct{ waits atomic.Bool }

func (*still) Size() (int64, error)                   { return 1 << 30, nil }
func (*still) Sync() error                            { return nil }
func (*still) ReadAt(p []byte, _ int64) (int, error)  { return len(p), nil }
func (*still) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (*still) TrimAt(_, _ int64) error                { return nil }
func (*still) ZeroAt(_, _ int64, _ bool) error        { return nil }
func (s *still) ReadAtNowait(p []byte, _ int64) (int, error) {
	if s.waits.Load() {
		return 0, syscall.EAGAIN
	}
	return len(p), nil
}

// TestNothingIsAllocatedForARequest: in the steady state, by the loop and by workers, in every way of answering.
func TestNothingIsAllocatedForARequest(t *testing.T) {
	if raced {
		t.Skip("the race detector has pools forget what they hold")
	}
	const rounds, each = 20, 16
	for name, terms := range map[string]terms{"simple": {}, "structured": {structured: true}, "extended": {structured: true, extended: true}} {
		for _, waits := range []bool{false, true} {
			for _, r := range []wire.Request{
				{Type: wire.CmdRead, Length: 4096}, {Type: wire.CmdWrite, Length: 4096}, {Type: wire.CmdRead, Length: 300_000},
				{Type: wire.CmdRead, Length: 300_000, Flags: wire.CmdFlagDF}, {Type: wire.CmdWrite, Length: 300_000},
				{Type: wire.CmdWrite, Length: 300_000, Flags: wire.CmdFlagFUA}, {Type: wire.CmdFlush}, {Type: wire.CmdTrim, Length: 1 << 20},
			} {
				if r.Flags&wire.CmdFlagDF != 0 && !terms.structured {
					continue
				}
				dev := new(still)
				e := NewExport("vol", dev, Options{})
				dev.waits.Store(waits)
				if waits {
					e.pacing.slowUntil.Store(1<<63 - 1)
				}
				c := newStream(t, e, terms, r, each)
				for range 5 { // what is kept for the next requests is made here
					c.round()
				}
				// One for each request would be 16. Now and then more is in flight than ever before.
				if n := testing.AllocsPerRun(rounds, c.round); n > 2 {
					t.Errorf("%s, waits %v: %v allocations for %d requests: command %d, flags %d, of %d bytes", name, waits, n, each, r.Type, r.Flags, r.Length)
				}
				c.end()
			}
		}
	}
}

// stream is a client that sends the same requests again and again.
type stream struct {
	t    *testing.T
	nc   net.Conn
	said []byte
	want int
	hear []byte
	send chan struct{}
	sent chan error
	done chan struct{}
}

// newStream serves an export over a pair of sockets. Nothing is negotiated: the terms are given.
func newStream(t *testing.T, e *Export, terms terms, r wire.Request, each int) *stream {
	t.Helper()
	ours, theirs := socketPair(t)
	c := newConn(NewServer(nil, slog.New(slog.DiscardHandler)), ours, Peer{}, Entrance{})
	c.terms = terms
	if !e.join(c) {
		t.Fatal("nobody may join")
	}
	s := &stream{t: t, nc: theirs, hear: make([]byte, 64<<10), send: make(chan struct{}), sent: make(chan error), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		defer ours.Close()
		newSession(c, e).run()
	}()
	for range each {
		if terms.extended {
			one := r
			if r.Type == wire.CmdWrite {
				one.Flags |= wire.CmdFlagPayloadLen
			}
			s.said = wire.AppendExtRequest(s.said, one)
		} else {
			s.said = wire.AppendRequest(s.said, r)
		}
		if r.Type == wire.CmdWrite {
			s.said = append(s.said, make([]byte, r.Length)...)
		}
	}
	s.want = each * answerSize(terms, r)
	go func() {
		for range s.send {
			_, err := theirs.Write(s.said)
			s.sent <- err
		}
	}()
	return s
}

// answerSize is how many bytes answer a request.
func answerSize(t terms, r wire.Request) int {
	if r.Type != wire.CmdRead {
		return len(t.appendAnswer(nil, r, 0))
	}
	if !t.structured || r.Flags&wire.CmdFlagDF != 0 {
		return t.dataHead() + int(r.Length)
	}
	size := 0
	for off := uint64(0); off < r.Length; off += cutPiece(off, r.Length) {
		size += t.dataHead() + int(cutPiece(off, r.Length))
	}
	return size
}

// round sends the requests and hears the answers out. A READ may end with a chunk that says no more than that it ends.
func (s *stream) round() {
	s.send <- struct{}{}
	for heard := 0; heard < s.want; {
		n, err := s.nc.Read(s.hear[:min(len(s.hear), s.want-heard)])
		if err != nil {
			s.t.Fatal(err)
		}
		heard += n
	}
	if err := <-s.sent; err != nil {
		s.t.Fatal(err)
	}
}

func (s *stream) end() {
	close(s.send)
	s.nc.Close()
	<-s.done
}

func socketPair(t *testing.T) (ours, theirs net.Conn) {
	t.Helper()
	path := t.TempDir() + "/s"
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	theirs, err = net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if ours, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}
