package layer

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"

	"github.com/google/uuid"

	"nbdcrypt/pkg/pool"
)

// blockMap is the map of one layer in memory. Records are read when they are first needed; what is blank on disk costs
// one bit, so that memory grows with what is used.
type blockMap struct {
	id  uuid.UUID
	vol pool.Volume

	mu      sync.RWMutex
	records map[int64]*record
	blank   map[int64]uint64 // records known to be blank, 64 to an entry
	dirty   map[int64]*record
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
}

func newBlockMap(id uuid.UUID, vol pool.Volume) *blockMap {
	return &blockMap{
		id: id, vol: vol,
		records: map[int64]*record{}, blank: map[int64]uint64{}, dirty: map[int64]*record{},
	}
}

// run tells the state of block b and how many blocks from it on, at most n, share it.
func (m *blockMap) run(b, n int64) (State, int64, error) {
	index, in := b/recordStates, int(b%recordStates)
	n = min(n, int64(recordStates-in))
	m.mu.RLock()
	r, known := m.records[index]
	isBlank := m.isBlank(index)
	if known && r.damage == nil {
		defer m.mu.RUnlock()
		return r.cur.get(in), int64(r.cur.run(in, in+int(n))), nil
	}
	m.mu.RUnlock()
	if isBlank {
		return Absent, n, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.load(index)
	if err != nil {
		return 0, 0, err
	}
	return r.cur.get(in), int64(r.cur.run(in, in+int(n))), nil
}

func (m *blockMap) isBlank(index int64) bool { return m.blank[index/64]>>(index%64)&1 == 1 }

// load returns a record, read from the map where it is not in memory. The caller holds mu alone.
func (m *blockMap) load(index int64) (*record, error) {
	if r := m.records[index]; r != nil {
		return r, r.damage
	}
	v := verdict{states: uniform[Absent]}
	if !m.isBlank(index) {
		var err error
		if v, err = m.read(index); err != nil {
			m.records[index] = &record{damage: err}
			return nil, err
		}
	}
	r := &record{cur: v.states, durable: v.states, generation: v.generation}
	if v.generation == 0 {
		m.blank[index/64] |= 1 << (index % 64)
		return r, nil // kept only once it is changed
	}
	m.records[index] = r
	return r, nil
}

// read judges the two pages of a record.
func (m *blockMap) read(index int64) (verdict, error) {
	buf := make([]byte, recordPairSize)
	if _, err := m.vol.ReadAt(buf, pageAt(index, 1)); err != nil {
		return verdict{}, fmt.Errorf("layer %s: map record %d: %w", m.id, index, err)
	}
	v, err := judge(inspect(m.id, index, true, buf[:pageSize]), inspect(m.id, index, false, buf[pageSize:]))
	if err != nil {
		return verdict{}, fmt.Errorf("layer %s: map record %d (%w): %w", m.id, index, syscall.EIO, err)
	}
	return v, nil
}

// prepare makes sure that the records of blocks [b, b+n) are in memory, sound, and have their space in the map, so
// that no later flush runs out of it.
func (m *blockMap) prepare(b, n int64) error {
	if m.prepared(b, n) {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for index := b / recordStates; index*recordStates < b+n; index++ {
		r, err := m.load(index)
		if err != nil {
			return err
		}
		if !r.reserved {
			if err := m.vol.Reserve(pageAt(index, 1), recordPairSize); err != nil {
				return fmt.Errorf("layer %s: room for map record %d: %w", m.id, index, err)
			}
			r.reserved = true
		}
		m.records[index] = r
	}
	return nil
}

func (m *blockMap) prepared(b, n int64) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for index := b / recordStates; index*recordStates < b+n; index++ {
		if r := m.records[index]; r == nil || !r.reserved || r.damage != nil {
			return false
		}
	}
	return true
}

// set gives blocks [b, b+n) a state in memory. Their records have been prepared.
func (m *blockMap) set(b, n int64, to State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.each(b, n, func(index int64, r *record, lo, hi int) {
		if first := r.cur.get(lo); first == to && r.cur.run(lo, hi) == hi-lo {
			return
		}
		r.change(lo, hi, to)
		m.dirty[index] = r
	})
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

// each calls fn with the part of [b, b+n) that lies in each record. The caller holds mu.
func (m *blockMap) each(b, n int64, fn func(index int64, r *record, lo, hi int)) {
	for end := b + n; b < end; {
		index, lo := b/recordStates, int(b%recordStates)
		hi := int(min(recordStates, int64(lo)+end-b))
		fn(index, m.records[index], lo, hi)
		b += int64(hi - lo)
	}
}

// settled tells whether blocks [b, b+n) have this state in memory, on disk, and in what a running flush is writing or a
// failed one may have written.
func (m *blockMap) settled(b, n int64, state State) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	all := true
	m.each(b, n, func(_ int64, r *record, lo, hi int) {
		if r == nil || r.damage != nil || r.doubt {
			all = false
			return
		}
		for _, s := range []*states{r.cur, r.durable, r.flying} {
			if s != nil && (s.get(lo) != state || s.run(lo, hi) != hi-lo) {
				all = false
			}
		}
	})
	return all
}

// change is one record that a flush writes.
type change struct {
	index int64
	*record
}

// takeOff notes what has changed up to now: the versions that this flush writes, and no later ones.
func (m *blockMap) takeOff() []change {
	m.mu.Lock()
	defer m.mu.Unlock()
	changes := make([]change, 0, len(m.dirty))
	for index, r := range m.dirty {
		r.flying = r.cur
		changes = append(changes, change{index, r})
	}
	clear(m.dirty)
	return changes
}

// write writes the next generation of the noted records.
func (m *blockMap) write(changes []change) error {
	for _, c := range changes {
		page := encodePage(m.id, c.index, c.generation+1, rand.Uint32(), c.flying)
		if _, err := m.vol.WriteAt(page, pageAt(c.index, c.generation+1)); err != nil {
			return fmt.Errorf("layer %s: write map record %d: %w", m.id, c.index, err)
		}
	}
	return nil
}

// land ends a flush: its versions are durable, or they are to be written again.
func (m *blockMap) land(changes []change, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range changes {
		if ok {
			c.land()
		} else {
			m.dirty[c.index] = c.record
		}
		c.flying, c.doubt = nil, !ok
	}
}

// land makes what was in flight durable, and lets go of memory that a uniform record can stand for.
func (r *record) land() {
	still := r.cur == r.flying
	r.durable = r.flying.shared()
	if still {
		r.cur = r.durable
	}
	r.generation++
}

// clean tells whether nothing waits to be written.
func (m *blockMap) clean() bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.dirty) == 0
}
