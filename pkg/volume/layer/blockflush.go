package layer

import (
	"fmt"
	"math/rand/v2"
)

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
	m.journalTakesOff()
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
	if ok && m.journal != nil {
		m.orEnd(m.journal.landed())
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
