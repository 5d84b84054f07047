package nbd

import (
	"errors"
	"io"
	"syscall"
)

const (
	// sourceSize is what a connection that waits holds: room for a burst of headers, or for one small write.
	sourceSize = 8 << 10
	// firstLoan is what it borrows when input has filled that: most that goes on is one longer write.
	firstLoan = 32 << 10
	// loanSize is what it borrows while its client keeps it busy: room for many small writes, or for a piece of a long one
	// and what is before it.
	loanSize = 512 << 10
)

// source is a buffered reader of one connection whose buffer can be wiped: it has carried what clients wrote. It waits
// with a small buffer, and borrows a large one while input fills it.
type source struct {
	r          io.Reader
	raw        syscall.RawConn // nil where r is no socket
	buf        []byte          // small, or borrowed
	small      []byte
	head, tail int
	pool       *buffers // of loans; nil before there is an export
	loan       int      // how much to borrow: once more was needed than the first loan, more at once
	eager      bool     // the last read filled the buffer
	needed     int      // by who waits
	beforeWait func()   // is called when there is no input; nil for nothing

	// What readRaw is told and tells. It is made once: nothing is allocated for a read.
	readRaw func(fd uintptr) bool
	want    []byte // nil for the buffer
	got     int
	err     error
}

func newSource(r io.Reader) *source {
	small := make([]byte, sourceSize)
	s := &source{r: r, buf: small, small: small, loan: firstLoan}
	if sc, ok := r.(syscall.Conn); ok {
		s.raw, _ = sc.SyscallConn()
	}
	s.readRaw = s.readSocket
	return s
}

// buffered is what has arrived and was not taken yet.
func (s *source) buffered() []byte { return s.buf[s.head:s.tail] }

// next takes n bytes that are buffered. They are valid until more is read.
func (s *source) next(n int) []byte {
	s.head += n
	return s.buf[s.head-n : s.head]
}

// need waits until n bytes are buffered, n being no more than loanSize. io.EOF means that the stream ended before the
// first of them. It reads what there is, but nothing beyond the first limit bytes: the rest has another place to go.
func (s *source) need(n, limit int) error {
	s.needed = n
	for first := s.tail == s.head; s.tail-s.head < n; first = false {
		s.makeRoom(n)
		got, err := s.receive(nil, min(len(s.buf)-s.tail, limit-(s.tail-s.head)))
		s.tail += got
		if got == 0 && err != nil {
			if first {
				return err
			}
			return unexpected(err)
		}
	}
	return nil
}

// makeRoom sees to room behind tail, and to n bytes behind head.
func (s *source) makeRoom(n int) {
	have := s.buffered()
	switch {
	case n > len(s.buf), s.eager && len(s.buf) < loanSize && s.pool != nil:
		if len(s.buf) > sourceSize || n > firstLoan {
			s.loan = loanSize
		}
		loan := s.pool.get(s.loan)
		copy(loan, have)
		s.giveBack()
		s.buf, s.head, s.tail = loan, 0, len(have)
	case len(have) == 0:
		s.head, s.tail = 0, 0
	case s.head+n > len(s.buf):
		copy(s.buf, have)
		s.head, s.tail = 0, len(have)
	}
}

// settle gives the loan back where the small buffer is enough for what is waited for.
func (s *source) settle() {
	have := s.buffered()
	if len(s.buf) == sourceSize || s.needed > sourceSize {
		return
	}
	copy(s.small, have)
	s.giveBack()
	s.buf, s.head, s.tail, s.eager = s.small, 0, len(have), false
}

// giveBack ends the loan, if there is one.
func (s *source) giveBack() {
	if len(s.buf) > sourceSize {
		s.pool.put(s.buf)
	}
}

// receive reads once: into p, or behind tail at most limit bytes.
func (s *source) receive(p []byte, limit int) (int, error) {
	if s.raw == nil {
		if !s.eager {
			s.settle()
		}
		if p == nil {
			p = s.buf[s.tail:min(len(s.buf), s.tail+limit)]
		}
		if s.beforeWait != nil {
			s.beforeWait()
		}
		n, err := s.r.Read(p)
		s.eager = n == len(p)
		return n, err
	}
	s.want, s.got, s.err = p, limit, nil
	err := s.raw.Read(s.readRaw)
	s.want = nil
	if err != nil {
		return 0, err
	}
	return s.got, s.err
}

// readSocket tries to read. Before it waits it gives back what it can do without.
func (s *source) readSocket(fd uintptr) bool {
	p := s.want
	if p == nil {
		p = s.buf[s.tail:min(len(s.buf), s.tail+s.got)]
	}
	for {
		n, err := syscall.Read(int(fd), p)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			s.settle()
			if s.beforeWait != nil {
				s.beforeWait()
			}
			return false
		case err != nil:
			n = 0
		case n == 0 && len(p) > 0:
			err = io.EOF
		}
		s.got, s.err, s.eager = n, err, n == len(p)
		return true
	}
}

// read fills p. io.EOF means that the stream ended before its first byte.
func (s *source) read(p []byte) error {
	got := s.take(p)
	for started := got > 0; got < len(p); started = true {
		n, err := s.more(p[got:])
		if n == 0 && err != nil {
			if started {
				return unexpected(err)
			}
			return err
		}
		got += n
	}
	return nil
}

// more reads once, large parts straight into p and small ones through the buffer, which is empty when it is called.
func (s *source) more(p []byte) (int, error) {
	s.needed = 0
	if len(p) >= sourceSize {
		return s.receive(p, 0)
	}
	s.head, s.tail = 0, 0
	n, err := s.receive(nil, len(s.buf))
	s.tail = s.head + n
	return s.take(p), err
}

func (s *source) take(p []byte) int {
	n := copy(p, s.buffered())
	s.head += n
	return n
}

// skip reads n bytes away.
func (s *source) skip(n int64) error {
	for n > 0 {
		if s.head == s.tail {
			if err := s.need(1, loanSize); err != nil {
				return unexpected(err)
			}
		}
		step := min(n, int64(s.tail-s.head))
		s.head += int(step)
		n -= step
	}
	return nil
}

// lend lets the source borrow from an export's memory, and call before it waits.
func (s *source) lend(pool *buffers, beforeWait func()) { s.pool, s.beforeWait = pool, beforeWait }

// wipe is the end of the source: the loan goes back and the small buffer is cleared.
func (s *source) wipe() {
	s.head, s.tail, s.needed = 0, 0, 0
	s.settle()
	clear(s.small)
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
