package nbd

import (
	"sync"
	"time"

	"nbdcrypt/nbd/internal/wire"
)

// whole is a long request of which workers have pieces. It ends with whoever ends its last piece. The loop holds a piece,
// too, until it has cut the rest. The sender's lock guards what changes.
type whole struct {
	wire.Request
	began   time.Duration
	pieces  int
	failure error // the first
	synced  bool  // FUA is seen to
}

var wholes = sync.Pool{New: func() any { return new(whole) }}

// divide makes a request a whole of which the loop has a piece. It is not charged for: whoever waits for memory for its
// pieces would wait for itself.
func (s *session) divide(r wire.Request) *whole {
	w := wholes.Get().(*whole)
	*w = whole{Request: r, began: s.began, pieces: 1}
	return w
}

// recycle is for who has ended the last piece.
func (w *whole) recycle() { wholes.Put(w) }

// handPiece gives n bytes at off of w to a worker. The charge for them is taken.
func (s *session) handPiece(w *whole, off uint64, n int, data []byte) {
	j := s.workers.get()
	j.Request, j.whole, j.data, j.charge, j.began = w.Request, w, data, n, w.began
	j.Offset, j.Length = off, uint64(n)
	s.out.mu.Lock()
	w.pieces++
	s.out.mu.Unlock()
	s.hand(j)
}

// end counts a piece as done and tells whether it was the last one.
func (s *sender) end(w *whole, err error) (last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return w.end(err)
}

// end is for who holds the lock.
func (w *whole) end(err error) (last bool) {
	w.pieces--
	if w.failure == nil {
		w.failure = err
	}
	return w.pieces == 0
}

// failed tells why a piece failed.
func (s *sender) failed(w *whole) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return w.failure
}

// submitPiece queues a chunk that answers a piece of a READ. Whether it is the last, and says so, is known only while
// nobody else can queue one.
func (s *sender) submitPiece(p *parcel, w *whole, err error) {
	s.mu.Lock()
	if w.end(err) {
		setDone(p.out)
		p.note(account{w.Type, w.failure != nil, w.Length, w.began})
		w.recycle()
	}
	s.enqueue(p)
	if s.begin() && (s.raw == nil || !s.drain(false)) {
		go s.pumpQueue()
	}
}

// setDone sets the flag in a chunk's header, whose flags follow its magic number.
func setDone(chunk []byte) { chunk[5] |= byte(wire.ChunkFlagDone) }
