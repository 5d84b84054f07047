package layer

import (
	"errors"
	"fmt"
	"syscall"
)

// loading is the reading of a record.
type loading struct {
	done chan struct{} // closed when err stands
	err  error
}

// load reads a record into memory, once for all who ask at the same time. No flush writes a record that is not in memory. What is damaged stays so
// until the layer is closed; what could not be read may be the next time.
func (m *blockMap) load(index int64) error {
	m.mu.Lock()
	if m.records.at(index) != nil {
		m.mu.Unlock()
		return nil
	}
	if l := m.loads[index]; l != nil {
		m.mu.Unlock()
		<-l.done
		return l.err
	}
	l := &loading{done: make(chan struct{}), err: errInterrupted}
	m.loads[index] = l
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.loads, index)
		m.mu.Unlock()
		close(l.done)
	}()
	v, err := m.read(index)
	m.mu.Lock()
	defer m.mu.Unlock()
	l.err = m.remember(index, v, err)
	return l.err
}

// remember puts what was read of a record into memory, and returns why nothing could be read of it. The caller holds mu.
func (m *blockMap) remember(index int64, v verdict, err error) error {
	switch {
	case errors.Is(err, ErrDamaged):
		m.records.put(index, &record{damage: err})
	case err != nil:
		return err
	case v.generation == 0:
		m.records.put(index, blank)
	default:
		m.records.put(index, &record{cur: v.states, durable: v.states, generation: v.generation})
	}
	return nil
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
	r := m.records.at(index)
	return r != nil && r.reserved
}

// changeable returns a record that can be changed; a blank one becomes one.
func (m *blockMap) changeable(index int64) (*record, error) {
	if err := m.load(index); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.records.at(index)
	if r == blank {
		r = &record{cur: uniform[Absent], durable: uniform[Absent]}
		m.records.put(index, r)
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
