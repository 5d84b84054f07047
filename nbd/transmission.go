package nbd

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"syscall"
	"time"

	"nbdcrypt/nbd/internal/wire"
)

const (
	// pieceSize is how much of a long READ or WRITE is in work at a time: what has just been read is decrypted and sent,
	// and what was received is encrypted and written, while it is in the second-level cache.
	pieceSize = 256 << 10
	// pieceCut is what pieces end at a multiple of, so that all but the first and the last are whole blocks.
	pieceCut = 4096
	// turn is how much work a connection does before other busy ones get theirs, and longTurn where it is the only one:
	// giving way costs two switches of threads.
	turn     = 256 << 10
	longTurn = 4 << 20
	// maxBatch is how many answers are kept to be sent together while there is input.
	maxBatch = 16
)

// session is the transmission phase of one connection: one goroutine, the loop, which reads many requests at once, does
// at once what can't wait, hands the rest to workers, and sends the answers of all that it has read together. Only the
// loop touches what is not said to be shared.
type session struct {
	conn    *conn
	export  *Export
	terms   terms
	in      *source
	budget  *budget  // shared
	out     *sender  // shared
	workers *workers // shared

	open    *parcel       // that answers are added to, or nil
	began   time.Duration // when the requests in work were read
	writes  int           // done since then by the loop itself
	work    int           // bytes since then
	turn    int           // bytes since others had their turn
	apart   bool          // the next header is read by itself
	between bool          // waits for a request, of which nothing is there
	idling  bool          // or was, and is not counted as busy
}

func newSession(c *conn, e *Export) *session {
	s := &session{conn: c, export: e, terms: c.terms, in: c.in, began: clock()}
	s.budget = newBudget(wire.MaxPayload, c.user)
	s.out = newSender(c, e, s.budget)
	s.workers = newWorkers(s.do)
	widen(c.socket)
	s.in.lend(&e.memory, s.idle)
	return s
}

// run serves requests until the client leaves or breaks the protocol. What is outstanding then finishes first and
// is answered (spec item 24).
func (s *session) run() error {
	defer s.in.wipe() // before the export forgets the connection, and with it its memory
	s.conn.server.busy.Add(1)
	err := s.serve()
	s.idle()
	s.workers.finish()
	s.out.finish()
	return err
}

// serve returns nil after DISC.
func (s *session) serve() error {
	for {
		r, err := s.request()
		if err != nil {
			return fmt.Errorf("nbd: request: %w", err)
		}
		if r.Type == wire.CmdDisc {
			return nil
		}
		if err := s.accept(r); err != nil {
			return err
		}
	}
}

var errMagic = errors.New("wrong magic number")

// request takes the next request's header.
func (s *session) request() (r wire.Request, err error) {
	size, limit, ok := wire.RequestSize, loanSize, false
	if s.terms.extended {
		size = wire.ExtRequestSize
	}
	if s.apart {
		limit, s.apart = size, false
	}
	s.between = len(s.in.buffered()) == 0
	err = s.want(size, limit)
	s.between = false
	if err != nil {
		return r, err
	}
	s.conn.requests.Add(1)
	if head := s.in.next(size); s.terms.extended {
		r, ok = wire.DecodeExtRequest((*[wire.ExtRequestSize]byte)(head))
	} else {
		r, ok = wire.DecodeRequest((*[wire.RequestSize]byte)(head))
	}
	if !ok {
		return r, errMagic
	}
	return r, nil
}

// want waits until n bytes are there, and reads no more than limit.
func (s *session) want(n, limit int) error {
	if len(s.in.buffered()) >= n {
		return nil
	}
	s.rest()
	err := s.in.need(n, limit)
	before := s.began
	s.wake()
	if err == nil && s.began-before > staleTime && hungUp(s.conn.socket) {
		// It may have lain in the socket all that time.
		err = io.EOF
	}
	return err
}

// idle is called when there is no input: now answers are not kept to be sent with others.
func (s *session) idle() {
	s.push()
	if !s.idling {
		s.idling = true
		if s.between {
			s.conn.pauses.Add(1)
		}
		s.conn.server.busy.Add(-1)
	}
}

// wake is the beginning of a batch.
func (s *session) wake() {
	if s.idling {
		s.idling = false
		s.conn.server.busy.Add(1)
	}
	s.began = clock()
}

// rest is the end of a batch. A few answers wait for more: if there is no more input they are sent at once (idle). Other
// connections get their turn.
func (s *session) rest() {
	if s.open != nil && (s.open.count >= maxBatch || len(s.open.out) >= maxBatch*1024) {
		s.flush()
	}
	if s.writes > 0 {
		s.export.pacing.judgeWrites(s.began, s.work)
	}
	s.turn += s.work
	s.writes, s.work = 0, 0
	if s.turn > longTurn || s.turn > turn && s.conn.server.busy.Load() > 1 {
		s.turn = 0
		runtime.Gosched()
	}
}

// accept judges a request and serves it, or sees to it that somebody does. A payload is read away where the request is
// refused, so that the connection stays in step (spec items 12, 20 and 21).
func (s *session) accept(r wire.Request) (err error) {
	payload := s.terms.payload(r)
	if payload > wire.MaxConsumed {
		return fmt.Errorf("nbd: request: payload of %d bytes", payload)
	}
	s.export.counters.begin()
	s.work += 512 // what a request costs besides its data, more or less
	if refused := s.export.check(r, s.terms); refused != 0 {
		err = s.refuse(r, payload, refused)
	} else {
		err = s.start(r)
	}
	if err != nil {
		s.export.counters.end(r.Type, 0, true, clock()-s.began)
		return fmt.Errorf("nbd: payload: %w", unexpected(err))
	}
	return nil
}

// start serves a request that passed its checks, and returns an error where its payload does not come.
func (s *session) start(r wire.Request) error {
	switch r.Type {
	case wire.CmdRead:
		s.read(r)
		return nil
	case wire.CmdWrite:
		return s.write(r)
	case wire.CmdFlush:
		if s.syncsNow() {
			s.answer(r, s.code(r, s.export.execute(r, nil)))
			return nil
		}
	}
	charge := jobCharge
	if r.Type == wire.CmdBlockStatus {
		charge = statusCharge
	}
	s.hand(s.newJob(r, charge))
	return nil
}

// refuse answers a request that is not served, and reads its payload away.
func (s *session) refuse(r wire.Request, payload uint64, why syscall.Errno) error {
	if payload > uint64(len(s.in.buffered())) {
		s.push()
	}
	if err := s.in.skip(int64(payload)); err != nil {
		return err
	}
	s.answer(r, uint32(why))
	return nil
}

// jobCharge is what a request costs the budget while a worker has it, at least: its answer is in memory until it is sent.
const jobCharge = 4096

// newJob makes a request a job that is charged for.
func (s *session) newJob(r wire.Request, charge int) *job {
	s.charge(charge)
	j := s.workers.get()
	j.Request, j.charge, j.began = r, charge, s.began
	return j
}

// charge takes from the budget. Answers that wait to be sent with others go first: they may be what frees it.
func (s *session) charge(n int) bool {
	if s.budget.try(n) {
		return true
	}
	s.push()
	s.writes = 0 // the time that this takes is not theirs
	return s.budget.take(n)
}

// hand gives a job to a worker.
func (s *session) hand(j *job) {
	if s.workers.full() {
		s.push()
		s.writes = 0
	}
	s.workers.hand(j)
}

// cutPiece is how much of a range that goes on to end is the piece that begins at off.
func cutPiece(off, end uint64) uint64 {
	return min(end, (off+pieceSize)/pieceCut*pieceCut) - off
}
