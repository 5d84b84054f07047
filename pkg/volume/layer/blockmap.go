package layer

import (
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/google/uuid"

	"nbdcrypt/pkg/pool"
)

// blockMap is the map of one layer in memory. Records are read when they are first needed; what is blank on disk costs
// one pointer, so that memory grows with what is used.
type blockMap struct {
	id  uuid.UUID
	vol pool.Volume

	// mu is held for as long as memory is looked at or changed, never while the map is read or written, so that what is in
	// memory waits for nothing that is not.
	mu      sync.RWMutex
	records recordTable
	dirty   map[int64]*record
	loads   map[int64]*loading // records that are being read
	journal *journal           // of changes that no flush has covered; nil where there is none
	begin   func(early bool) (*journal, error)
	lost    func(error) // is told where the journal can't go on
	// frozen tells that no record changes any more, so that looking needs no lock: who reads through many layers would take
	// one of each.
	frozen atomic.Bool
}

// record is one record in its up to three versions. They are shared until they differ: who changes cur while it is
// also durable or in flight makes a copy first.
type record struct {
	cur        *states // what I/O sees
	durable    *states // what the newest durable page says
	flying     *states // what a running flush is writing, else nil
	generation uint64  // of durable
	reserved   bool    // both pages are allocated
	doubt      bool    // a flush that met ENOSPC may have left a next generation that nobody waited for
	damage     error

	reserving sync.Mutex
}

func newBlockMap(id uuid.UUID, vol pool.Volume) *blockMap {
	return &blockMap{id: id, vol: vol, dirty: map[int64]*record{}, loads: map[int64]*loading{}}
}

// run tells the state of block b and how many blocks from it on, at most n, share it. A record that is not in memory is
// read, or where nobody wants to wait for that the error is EAGAIN; the run is then what the record says nothing of.
func (m *blockMap) run(b, n int64, wait bool) (State, int64, error) {
	state, run, known, err := m.look(b, n)
	if known {
		return state, run, err
	}
	if !wait {
		return Absent, run, syscall.EAGAIN
	}
	if err := m.load(b / recordStates); err != nil {
		return Absent, run, err
	}
	state, run, _, err = m.look(b, n)
	return state, run, err
}

// look is run for what is in memory.
func (m *blockMap) look(b, n int64) (state State, run int64, known bool, err error) {
	index, in := b/recordStates, int(b%recordStates)
	n = min(n, int64(recordStates-in))
	r := m.records.at(index)
	switch {
	case r == nil:
		return Absent, n, false, nil
	case r == blank:
		return Absent, n, true, nil
	case r.damage != nil:
		return Absent, n, true, r.damage
	}
	if !m.frozen.Load() {
		m.mu.RLock()
		defer m.mu.RUnlock()
	}
	return r.cur.get(in), int64(r.cur.run(in, in+int(n))), true, nil
}

// set gives blocks [b, b+n) a state in memory, and in the journal, before whoever asked for it is answered. Their records have been prepared.
func (m *blockMap) set(b, n int64, to State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	changed := false
	for at, end := b, b+n; at < end; {
		index, lo, hi := piece(at, end)
		if r := m.records.at(index); !r.cur.all(lo, hi, to) {
			r.change(lo, hi, to)
			m.dirty[index] = r
			changed = true
		}
		at += int64(hi - lo)
	}
	if changed && m.journal != nil {
		m.keep(Change{b, n, to})
	}
}

// piece is the record of block b, and which of its blocks lie in [b, end).
func piece(b, end int64) (index int64, lo, hi int) {
	index, lo = b/recordStates, int(b%recordStates)
	return index, lo, int(min(recordStates, int64(lo)+end-b))
}

// change gives states lo to hi-1 a value in memory. What is shared is copied first.
func (r *record) change(lo, hi int, to State) {
	if lo == 0 && hi == recordStates {
		r.cur = uniform[to]
		return
	}
	if r.cur == r.durable || r.cur == r.flying || r.cur == uniform[r.cur.get(0)] {
		mine := *r.cur
		r.cur = &mine
	}
	for i := lo; i < hi; i++ {
		r.cur.set(i, to)
	}
}

// settled tells whether blocks [b, b+n) have this state in memory, on disk, and in what a running flush is writing or a
// failed one may have written.
func (m *blockMap) settled(b, n int64, state State) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for end := b + n; b < end; {
		index, lo, hi := piece(b, end)
		if r := m.records.at(index); r == nil || !r.settled(lo, hi, state) {
			return false
		}
		b += int64(hi - lo)
	}
	return true
}

func (r *record) settled(lo, hi int, state State) bool {
	return r.damage == nil && !r.doubt && r.cur.all(lo, hi, state) && r.durable.all(lo, hi, state) &&
		(r.flying == nil || r.flying.all(lo, hi, state))
}

// inMemory are the numbers of the records that are, but for damaged and blank ones.
func (m *blockMap) inMemory() map[int64]bool {
	all := map[int64]bool{}
	m.records.each(func(index int64, r *record) {
		if r != blank && r.damage == nil {
			all[index] = true
		}
	})
	return all
}

// usage is what a record in memory says at this moment.
func (m *blockMap) usage(index int64) (u Usage, known bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	r := m.records.at(index)
	if r == nil || r.damage != nil {
		return Usage{}, false
	}
	return r.cur.usage(), true
}

// clean tells whether nothing waits to be written.
func (m *blockMap) clean() bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.dirty) == 0
}
