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

	// mu is held for as long as memory is looked at or changed, never while the map is read or written, so that what is in
	// memory waits for nothing that is not.
	mu      sync.RWMutex
	records map[int64]*record
	blank   map[int64]uint64 // records known to be blank, 64 to an entry
	dirty   map[int64]*record
	loads   map[int64]chan struct{} // records that are being read; closed when they are
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
	return &blockMap{
		id: id, vol: vol,
		records: map[int64]*record{}, blank: map[int64]uint64{}, dirty: map[int64]*record{}, loads: map[int64]chan struct{}{},
	}
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
	m.load(b / recordStates)
	state, run, _, err = m.look(b, n)
	return state, run, err
}

// look is run for what is in memory.
func (m *blockMap) look(b, n int64) (state State, run int64, known bool, err error) {
	index, in := b/recordStates, int(b%recordStates)
	n = min(n, int64(recordStates-in))
	m.mu.RLock()
	defer m.mu.RUnlock()
	r := m.records[index]
	switch {
	case r == nil:
		return Absent, n, m.isBlank(index), nil
	case r.damage != nil:
		return Absent, n, true, r.damage
	}
	return r.cur.get(in), int64(r.cur.run(in, in+int(n))), true, nil
}

func (m *blockMap) isBlank(index int64) bool { return m.blank[index/64]>>(index%64)&1 == 1 }

// load reads a record into memory, once for all who ask at the same time. No flush writes a record that is not in memory.
func (m *blockMap) load(index int64) {
	m.mu.Lock()
	if m.records[index] != nil || m.isBlank(index) {
		m.mu.Unlock()
		return
	}
	if done := m.loads[index]; done != nil {
		m.mu.Unlock()
		<-done
		return
	}
	done := make(chan struct{})
	m.loads[index] = done
	m.mu.Unlock()
	v, err := verdict{}, errInterrupted
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.keep(index, v, err)
		delete(m.loads, index)
		close(done)
	}()
	v, err = m.read(index)
}

// keep puts what was read of a record into memory. The caller holds mu.
func (m *blockMap) keep(index int64, v verdict, err error) {
	switch {
	case err != nil:
		m.records[index] = &record{damage: err}
	case v.generation == 0:
		m.blank[index/64] |= 1 << (index % 64)
	default:
		m.records[index] = &record{cur: v.states, durable: v.states, generation: v.generation}
	}
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
	for index := b / recordStates; index*recordStates < b+n; index++ {
		if m.prepared(index) {
			continue
		}
		r, err := m.changeable(index)
		if err == nil {
			err = m.reserve(index, r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *blockMap) prepared(index int64) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	r := m.records[index]
	return r != nil && r.reserved
}

// changeable returns a record that can be changed; a blank one becomes one.
func (m *blockMap) changeable(index int64) (*record, error) {
	m.load(index)
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.records[index]
	if r == nil {
		r = &record{cur: uniform[Absent], durable: uniform[Absent]}
		m.records[index] = r
	}
	return r, r.damage
}

// reserve allocates the pages of a record. One caller at a time does: until it is done nobody changes the record, so that
// no flush writes pages while a pool without fallocate writes over them what it read.
func (m *blockMap) reserve(index int64, r *record) error {
	r.reserving.Lock()
	defer r.reserving.Unlock()
	if m.prepared(index) {
		return nil
	}
	if err := m.vol.Reserve(pageAt(index, 1), recordPairSize); err != nil {
		return fmt.Errorf("layer %s: room for map record %d: %w", m.id, index, err)
	}
	m.mu.Lock()
	r.reserved = true
	m.mu.Unlock()
	return nil
}

// set gives blocks [b, b+n) a state in memory. Their records have been prepared.
func (m *blockMap) set(b, n int64, to State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for end := b + n; b < end; {
		index, lo, hi := piece(b, end)
		if r := m.records[index]; !r.cur.all(lo, hi, to) {
			r.change(lo, hi, to)
			m.dirty[index] = r
		}
		b += int64(hi - lo)
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
		if r := m.records[index]; r == nil || !r.settled(lo, hi, state) {
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
	flown := make([]*states, len(changes))
	for i, c := range changes {
		flown[i] = c.flying.shared() // it takes a while, and nobody changes what is in flight
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, c := range changes {
		if ok {
			c.land(flown[i])
		} else {
			m.dirty[c.index] = c.record
		}
		c.flying, c.doubt = nil, !ok
	}
}

// land makes what was in flight durable, and lets go of memory that a uniform record can stand for.
func (r *record) land(flown *states) {
	still := r.cur == r.flying
	r.durable = flown
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
