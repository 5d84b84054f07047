package attest

import (
	"context"
	"crypto/rand"
	"unsafe"

	"nbdcrypt/pkg/secret"
)

// A search is one walk through all memory.
type search struct {
	walk    *walk
	control *decoy
	seen    bool // the control was
	report  Report
}

// A decoy is random bytes on the heap that a search must find. They are no secret.
type decoy struct {
	bytes window
	marks *Marks
}

func newDecoy(p *printer) *decoy {
	d := &decoy{marks: &Marks{prints: make([]print, 1)}}
	rand.Read(d.bytes[:])
	p.take(&d.marks.prints[0], &d.bytes)
	return d
}

func (d *decoy) address() uintptr { return uintptr(unsafe.Pointer(&d.bytes)) }

func newSearch(marks []*Marks) (*search, error) {
	p, err := thePrinter()
	if err != nil {
		return nil, err
	}
	control := newDecoy(p)
	w, err := newWalk(p, newSieve(append([]*Marks{control.marks}, marks...)))
	if err != nil {
		return nil, err
	}
	return &search{walk: w, control: control}, nil
}

func (s *search) close() { s.walk.work.Destroy() }

// everywhere walks through what is mapped now. Key memory is listed after it, so that none is missed.
func (s *search) everywhere(ctx context.Context, progress func(done, total int64)) error {
	list, err := regions(s.control.address())
	if err != nil {
		return err
	}
	list = without(list, secret.Spans())
	done, total := int64(0), int64(0)
	for _, r := range list {
		total += int64(r.to - r.from)
	}
	for _, r := range list {
		before := s.walk.read
		for at := r.from; at < r.to; {
			if err := ctx.Err(); err != nil {
				return err
			}
			next, err := s.walk.piece(at, r.to)
			if err != nil {
				return err
			}
			s.take(list)
			done += int64(next - at)
			progress(done, total)
			at = next
		}
		if s.walk.read > before {
			s.report.Regions++
		}
	}
	s.report.Bytes, s.report.Unreadable = s.walk.read, s.walk.unreadable
	return nil
}

// take notes what the last piece had.
func (s *search) take(list []region) {
	for _, p := range s.walk.found {
		switch {
		case p.trace.marks == s.control.marks:
			s.seen = s.seen || p.address == s.control.address()
		case !isKeyMemory(p.address):
			s.report.note(Hit{p.trace.marks.what(p.trace.index), p.trace.marks.layer, nameOf(list, p.address), p.address})
		}
	}
}

// isKeyMemory tells whether memory has become key memory since the search began.
func isKeyMemory(address uintptr) bool {
	for _, s := range secret.Spans() {
		if s.From <= address && address < s.To {
			return true
		}
	}
	return false
}
