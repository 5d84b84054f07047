package nbd

import (
	"errors"
	"fmt"
	"sync"

	"nbdcrypt/nbd/internal/wire"
)

const (
	// maxWorkers is how many device calls one connection may have in progress.
	maxWorkers = 16
	// firstPiece of a long payload is allocated at once, the rest as it arrives: who only claims to send much, holds
	// little memory.
	firstPiece = 1 << 20
)

// session is the transmission phase of one connection: a reader that decodes requests, workers that run them on the
// device, and one writer, so that replies never interleave (spec item 17).
type session struct {
	conn    *conn
	export  *Export
	budget  *budget
	work    chan job
	workers sync.WaitGroup
	hired   int
	replies chan reply
}

// job is a request that passed its checks, with its payload where it has one.
type job struct {
	wire.Request
	data []byte
}

func newSession(c *conn, e *Export) *session {
	return &session{
		conn:    c,
		export:  e,
		budget:  newBudget(wire.MaxPayload),
		work:    make(chan job),
		replies: make(chan reply, maxWorkers),
	}
}

// run serves requests until the client leaves or breaks the protocol. What is outstanding then finishes first and
// is answered (spec item 24).
func (s *session) run() error {
	written := make(chan struct{})
	go func() {
		defer close(written)
		newWriter(s).run()
	}()
	err := s.readRequests()
	close(s.work)
	s.workers.Wait()
	close(s.replies)
	<-written
	return err
}

// readRequests returns nil after DISC.
func (s *session) readRequests() error {
	var head [wire.RequestSize]byte
	for {
		if err := s.conn.in.read(head[:]); err != nil {
			return fmt.Errorf("nbd: request: %w", err)
		}
		r, ok := wire.DecodeRequest(&head)
		if !ok {
			return errors.New("nbd: request: wrong magic number")
		}
		if r.Type == wire.CmdDisc {
			return nil
		}
		if err := s.accept(r); err != nil {
			return err
		}
	}
}

// accept judges a request, reads its payload and hands it to a worker. Only WRITE has a payload, which is read away
// where the request is refused, so that the connection stays in step (spec items 12, 20 and 21).
func (s *session) accept(r wire.Request) error {
	if r.Type == wire.CmdWrite && r.Length > wire.MaxConsumed {
		return fmt.Errorf("nbd: request: payload of %d bytes", r.Length)
	}
	if refused := s.export.check(r); refused != nil {
		if r.Type == wire.CmdWrite {
			if err := s.conn.in.skip(int64(r.Length)); err != nil {
				return fmt.Errorf("nbd: payload: %w", err)
			}
		}
		s.replies <- reply{Reply: wire.Reply{Error: wire.Code(refused), Cookie: r.Cookie}}
		return nil
	}
	j := job{Request: r}
	s.budget.take(j.charge())
	if r.Type == wire.CmdWrite {
		if err := s.receive(&j); err != nil {
			return fmt.Errorf("nbd: payload: %w", err)
		}
	}
	s.hand(j)
	return nil
}

// charge is how much of the budget a request takes until it is answered.
func (j job) charge() int {
	if j.Type == wire.CmdRead || j.Type == wire.CmdWrite {
		return int(j.Length)
	}
	return 0
}

// receive reads the payload, doubling the buffer as it arrives.
func (s *session) receive(j *job) error {
	memory := &s.export.memory
	total := int(j.Length)
	for len(j.data) < total {
		got := len(j.data)
		larger := memory.get(min(total, max(firstPiece, 2*got)))
		copy(larger, j.data)
		memory.put(j.data)
		j.data = larger
		if err := s.conn.in.read(larger[got:]); err != nil {
			memory.put(larger)
			return unexpected(err)
		}
	}
	return nil
}

// hand gives the job to a free worker, to a new one, or waits. A new one is hired only while all are busy.
func (s *session) hand(j job) {
	select {
	case s.work <- j:
		return
	default:
	}
	if s.hired < maxWorkers {
		s.hired++
		s.workers.Go(s.labour)
	}
	s.work <- j
}

func (s *session) labour() {
	for j := range s.work {
		s.replies <- s.do(j)
	}
}

// do runs one job. A READ's data is complete before its reply exists (spec item 18), and what carried plaintext goes
// back to the export's memory.
func (s *session) do(j job) reply {
	if j.Type == wire.CmdRead {
		j.data = s.export.memory.get(int(j.Length))
	}
	err := s.export.execute(j.Request, j.data)
	answer := reply{Reply: wire.Reply{Error: wire.Code(err), Cookie: j.Cookie}, charge: j.charge()}
	if err == nil && j.Type == wire.CmdRead {
		answer.data = j.data
		return answer
	}
	s.export.memory.put(j.data)
	if err != nil && !errors.Is(err, ErrShutdown) {
		s.conn.complain("request failed", err, "export", s.export.name, "command", j.Type)
	}
	return answer
}
