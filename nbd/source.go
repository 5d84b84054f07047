package nbd

import (
	"errors"
	"io"
)

// sourceSize is room for a burst of request headers, or for a few small writes.
const sourceSize = 16 << 10

// source is a buffered reader of one connection whose buffer can be wiped: it has carried what clients wrote.
type source struct {
	r          io.Reader
	buf        []byte
	head, tail int
}

func newSource(r io.Reader) *source { return &source{r: r, buf: make([]byte, sourceSize)} }

// read fills p. io.EOF means that the stream ended before its first byte.
func (s *source) read(p []byte) error {
	got := s.take(p)
	if got > 0 && got < len(p) {
		return unexpected(s.readRest(p[got:]))
	}
	return s.readRest(p[got:])
}

// readRest fills p from the connection: large parts straight into p, small ones through the buffer.
func (s *source) readRest(p []byte) error {
	for started := false; len(p) > 0; started = true {
		n, err := s.more(p)
		if n == 0 && err != nil {
			if started {
				return unexpected(err)
			}
			return err
		}
		p = p[n:]
	}
	return nil
}

// more reads once and moves what it can into p; the buffer is empty when it is called.
func (s *source) more(p []byte) (int, error) {
	if len(p) >= len(s.buf) {
		return s.r.Read(p)
	}
	n, err := s.r.Read(s.buf)
	s.head, s.tail = 0, n
	return s.take(p), err
}

func (s *source) take(p []byte) int {
	n := copy(p, s.buf[s.head:s.tail])
	s.head += n
	return n
}

// skip reads n bytes away.
func (s *source) skip(n int64) error {
	for n > 0 {
		if s.head == s.tail {
			got, err := s.r.Read(s.buf)
			s.head, s.tail = 0, got
			if got == 0 && err != nil {
				return unexpected(err)
			}
		}
		step := min(n, int64(s.tail-s.head))
		s.head += int(step)
		n -= step
	}
	return nil
}

func (s *source) wipe() { clear(s.buf) }

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
