package load

import (
	"errors"
	"fmt"
)

// Result is what a verification found, in bytes.
type Result struct {
	Promised int64  `json:"promised"`        // had been acknowledged
	Lost     int64  `json:"lost"`            // of these: older, or not what any change wrote
	Garbage  int64  `json:"garbage"`         // what no change wrote, or can't be read; promised or not
	Newer    int64  `json:"newer"`           // more than was promised
	First    string `json:"first,omitempty"` // what was wrong first
}

// Verify reads all parts and holds each sector against what was acknowledged: it has the last change that must be there, or a later one, whole.
func Verify(p Plan, name string, a Acks) (r Result, err error) {
	t, err := open(name)
	if err != nil {
		return r, fmt.Errorf("load: %w", err)
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	for worker := range p.Workers {
		found := p.read(t, worker)
		for s, must := range p.floor(worker, a) {
			r.judge(worker, s, must, found)
		}
	}
	return r, nil
}

// part is what a worker's part of the target holds.
type part struct {
	plan    Plan
	sectors []sector
	newest  uint64 // change
}

type sector struct {
	number uint64 // of the change that wrote it, 0 for zeros
	ok     bool   // one did
	err    error
}

// read reads a worker's part. Where it can't be read at once, each sector by itself.
func (p Plan) read(t target, worker int) *part {
	found := &part{plan: p}
	for first := 0; first < p.Sectors; first += longest {
		data := make([]byte, min(longest, p.Sectors-first)*Sector)
		_, err := t.ReadAt(data, p.at(worker, first))
		for at := 0; at < len(data); at += Sector {
			own := err
			if err != nil {
				_, own = t.ReadAt(data[at:at+Sector], p.at(worker, first)+int64(at))
			}
			s := sector{err: own}
			if own == nil {
				s.number, s.ok = p.written(worker, len(found.sectors), data[at:at+Sector])
			}
			found.newest = max(found.newest, s.number)
			found.sectors = append(found.sectors, s)
		}
	}
	return found
}

func (r *Result) judge(worker, at int, must uint64, found *part) {
	s := found.sectors[at]
	if s.ok && s.number == 0 && must > 0 {
		s.number = found.zeroed(worker, at, must)
	}
	if must > 0 {
		r.Promised += Sector
	}
	switch {
	case s.ok && s.number > must:
		r.Newer += Sector
		return
	case s.ok && s.number == must:
		return
	case !s.ok:
		r.Garbage += Sector
	}
	if must > 0 {
		r.Lost += Sector
	}
	if r.First == "" {
		r.First = fmt.Sprintf("worker %d, sector %d: change %d or a later one was promised, found %+v; the newest of the part is %d", worker, at, must, s, found.newest)
	}
}

// unseen is how many changes may have been under way without one that is seen: more than that there never are between two flushes.
const unseen = 200

// zeroed finds the change, from must on, that left zeros in a sector; 0 where there is none.
func (found *part) zeroed(worker, at int, must uint64) uint64 {
	for number := must; number <= max(must, found.newest)+unseen; number++ {
		if c := found.plan.change(worker, number); c.zeros() && c.covers(at) {
			return number
		}
	}
	return 0
}
