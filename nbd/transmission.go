package nbd

import (
	"errors"
	"fmt"
	"sync"
	"syscall"

	"nbdcrypt/nbd/internal/wire"
)

// firstPiece of a long payload is allocated at once, the rest as it arrives: who only claims to send much, holds
// little memory.
const firstPiece = 1 << 20

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

func newSession(c *conn, e *Export) *session {
	return &session{
		conn:    c,
		export:  e,
		budget:  newBudget(wire.MaxPayload, c.user),
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
		return s.refuse(r, refused)
	}
	j := job{Request: r}
	if n := j.charge(); n > 0 && !s.budget.take(n) {
		return s.refuse(r, syscall.ENOMEM)
	}
	if r.Type == wire.CmdWrite {
		if err := s.receive(&j); err != nil {
			s.budget.give(j.charge())
			return fmt.Errorf("nbd: payload: %w", err)
		}
	}
	s.hand(j)
	return nil
}

// refuse answers a request that is not served, and reads its payload away.
func (s *session) refuse(r wire.Request, why error) error {
	if r.Type == wire.CmdWrite {
		if err := s.conn.in.skip(int64(r.Length)); err != nil {
			return fmt.Errorf("nbd: payload: %w", err)
		}
	}
	s.replies <- reply{Reply: wire.Reply{Error: wire.Code(why), Cookie: r.Cookie}}
	return nil
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
