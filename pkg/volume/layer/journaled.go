package layer

import (
	"errors"
	"fmt"
	"syscall"

	"nbdcrypt/pkg/pool"
)

// begin begins the layer's journal. Without one the layer works as well; only a killed process may cost what was not flushed then.
func (l *Layer) begin(in pool.Pool, o Options) {
	// A flush that a journal asks for begins on its own: who asks has the map's lock.
	shorten := func() { l.trims.start(0, l.Flush) }
	l.blocks.begin = func(early bool) (*journal, error) {
		return o.Journals.beginJournal(in, journalHeader{Boot: o.Journals.Boot, layer: l.ID, Opening: o.Opening}, early, shorten)
	}
	l.blocks.lost = l.noJournal
	j, err := l.blocks.begin(len(o.Replay) > 0)
	if err != nil {
		l.noJournal(err)
	}
	if errors.Is(err, syscall.ENOTSUP) {
		l.blocks.begin = nil // nor will it be later
	}
	l.blocks.journal = j
}

// Journaled tells whether a journal keeps what is not flushed yet.
func (l *Layer) Journaled() bool {
	l.blocks.mu.RLock()
	defer l.blocks.mu.RUnlock()
	return l.blocks.journal != nil && !l.blocks.journal.early
}

func (l *Layer) noJournal(why error) {
	if l.unjournaled != nil {
		l.unjournaled(fmt.Errorf("layer %s: %w", l.ID, why))
	}
}

// replay makes the changes once more that were answered and not flushed. What is durable of them already is as it was, since they are all
// that happened from then on, in their order.
func (l *Layer) replay(changes []Change) error {
	for _, c := range changes {
		if err := l.blocks.prepare(c.Block, c.Blocks); err != nil {
			return err
		}
		l.blocks.set(c.Block, c.Blocks, c.State)
		if c.State == Zero {
			l.punches.add(c.Block*BlockSize, c.Blocks*BlockSize)
		}
	}
	return l.checkReplayed(changes)
}

// checkReplayed refuses data blocks of an encrypted layer that lie in holes of the data volume: there the journal says more than the pool
// has kept.
func (l *Layer) checkReplayed(changes []Change) error {
	for _, c := range changes {
		if c.State != Data {
			continue // a block that is data at the end became so by a change; others may be of the whole disk
		}
		for b := c.Block; l.Encrypted && b < c.Block+c.Blocks; b++ {
			state, _, err := l.blocks.run(b, 1, true)
			if err != nil || state != Data {
				continue
			}
			if next, err := l.data.NextData(b * BlockSize); err != nil || next > b*BlockSize {
				return errors.Join(fmt.Errorf("%w: layer %s: the journal has block %d, and the data volume does not", ErrDamaged, l.ID, b), err)
			}
		}
	}
	return nil
}

// endJournal lets go of the journal's memory. No flush begins another.
func (l *Layer) endJournal() {
	l.blocks.mu.Lock()
	defer l.blocks.mu.Unlock()
	if l.blocks.journal != nil {
		l.blocks.journal.close()
	}
	l.blocks.journal, l.blocks.begin = nil, nil
}

// keep puts a change into the journal: in the order of the changes, hence under their lock. The caller holds mu.
func (m *blockMap) keep(c Change) { m.orEnd(m.journal.add(c)) }

// orEnd ends a journal that can't go on, before the change that it lacks is answered. The caller holds mu.
func (m *blockMap) orEnd(err error) {
	if err == nil {
		return
	}
	err = errors.Join(err, m.journal.drop())
	m.journal = nil
	m.lost(err)
}

// journalTakesOff has the journal begin anew for what the flush that begins does not cover. One that had to end begins again with what
// comes from here on. The caller holds mu.
func (m *blockMap) journalTakesOff() {
	if m.journal != nil {
		m.journal.takeOff()
	} else if m.begin != nil {
		m.journal, _ = m.begin(true) // that there is none was told before
	}
}

// loseJournal removes the journal of a layer whose sync failed, and begins no other.
func (m *blockMap) loseJournal() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.begin = nil
	if m.journal != nil {
		_ = m.journal.drop() // nothing more can be done, and the failed sync is told
		m.journal = nil
	}
}
