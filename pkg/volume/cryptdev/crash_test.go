package cryptdev_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"nbdcrypt/pkg/pool/pooltest"
	"nbdcrypt/pkg/volume/cryptdev"
)

const sector = 512

// model is what a disk may hold after a power cut: of each sector every content it had since it was last known durable.
type model struct {
	base    int64
	now     []byte
	before  []byte      // the last operation was begun
	dead    func() bool // tells that nobody is answered any more; nil for never
	history [][][]byte  // by sector; the first is durable
	gone    []int       // by sector: how many contents were forgotten before that
}

func newModel(base int64, size int) *model {
	m := &model{base: base, now: make([]byte, size), history: make([][][]byte, size/sector), gone: make([]int, size/sector)}
	m.durable(base, int64(size))
	return m
}

func (m *model) sector(i int) []byte { return m.now[i*sector : (i+1)*sector] }

// change gives [off, off+len(p)) new content, which may or may not survive.
func (m *model) change(p []byte, off int64) {
	lo := int(off - m.base)
	copy(m.now[lo:], p)
	for i := lo / sector; i <= (lo+len(p)-1)/sector; i++ {
		m.history[i] = append(m.history[i], bytes.Clone(m.sector(i)))
	}
}

// durable makes what stands in the sectors inside of [off, off+n) the only content that may come back.
func (m *model) durable(off, n int64) {
	lo, hi := int(off-m.base+sector-1)/sector, int(off-m.base+n)/sector
	for i := lo; i < hi; i++ {
		m.gone[i] += max(0, len(m.history[i])-1)
		m.history[i] = [][]byte{bytes.Clone(m.sector(i))}
	}
}

// mark notes which content each sector has now, for durableSince.
func (m *model) mark() (marks []int) {
	for i := range m.history {
		marks = append(marks, m.gone[i]+len(m.history[i])-1)
	}
	return marks
}

// durableSince forgets what the sectors held before the marks: those contents are durable, or later ones are.
func (m *model) durableSince(marks []int) {
	for i, mark := range marks {
		if n := mark - m.gone[i]; n > 0 {
			m.history[i], m.gone[i] = m.history[i][n:], mark
		}
	}
}

// grow adds zeros, which have been there for ever.
func (m *model) grow(size int) {
	for len(m.now) < size {
		m.now = append(m.now, make([]byte, sector)...)
		m.history, m.gone = append(m.history, [][]byte{make([]byte, sector)}), append(m.gone, 0)
	}
}

// recover takes over what came back, if it may.
func (m *model) recover(got []byte) error {
	for i := range m.history {
		is := got[i*sector : (i+1)*sector]
		allowed := false
		for _, h := range m.history[i] {
			allowed = allowed || bytes.Equal(h, is)
		}
		if !allowed {
			return fmt.Errorf("sector %d (byte %d) came back as none of its %d contents since the last flush",
				i, m.base+int64(i*sector), len(m.history[i]))
		}
	}
	copy(m.now, got)
	m.durable(m.base, int64(len(m.now)))
	return nil
}

// step plays one random operation on the device and the model.
func (m *model) step(rng *rand.Rand, d *cryptdev.Device) error {
	if err := m.play(rng, d); err != nil || m.dead == nil || !m.dead() {
		return err
	}
	return pooltest.ErrPower
}

func (m *model) play(rng *rand.Rand, d *cryptdev.Device) error {
	if m.dead != nil && m.dead() {
		return pooltest.ErrPower
	}
	m.before = bytes.Clone(m.now)
	off, n := m.draw(rng)
	p := make([]byte, n)
	switch what := rng.IntN(10); {
	case what < 5:
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
		m.change(p, off)
		if what > 0 {
			_, err := d.WriteAt(p, off)
			return err
		}
		if _, err := d.WriteAtFUA(p, off); err != nil {
			return err
		}
		m.durable(off, int64(n))
	case what < 8:
		m.change(p, off)
		return d.ZeroAt(off, int64(n), what == 5)
	case what < 9:
		if err := d.Sync(); err != nil {
			return err
		}
		m.durable(m.base, int64(len(m.now)))
	default:
		got := make([]byte, n)
		if _, err := d.ReadAt(got, off); err != nil {
			return err
		}
		if !bytes.Equal(got, m.now[off-m.base:][:n]) {
			return fmt.Errorf("a read of %d bytes at %d is wrong", n, off)
		}
	}
	return nil
}

// draw picks a range: half of them whole blocks, some whole sectors, the others any bytes.
func (m *model) draw(rng *rand.Rand) (off int64, n int) {
	unit := []int{4096, 4096, 512, 1}[rng.IntN(4)]
	units := len(m.now) / unit
	first := rng.IntN(units)
	n = min(units-first, 1+rng.IntN(1+5*4096/unit)) * unit
	return m.base + int64(first*unit), n
}

// window is where the model plays: round the border of two map records.
const (
	recordBytes = 15872 * 4096
	window      = 24 * 4096
	windowAt    = recordBytes - 12*4096
)

// Promise 3 and durability rules 1 to 5: after a power cut at any operation of the storage, with any unflushed sectors
// lost or kept, every sector holds its last flushed content or a later one, never anything else, and no error.
func TestPowerCuts(t *testing.T) {
	cuts := 150
	if testing.Short() {
		cuts = 15
	}
	for _, encrypted := range []bool{true, false} {
		for seed := range uint64(4) {
			t.Run(fmt.Sprintf("encrypted=%v/seed=%d", encrypted, seed), func(t *testing.T) {
				playCuts(t, seed, encrypted, cuts)
			})
		}
	}
}

func playCuts(t *testing.T, seed uint64, encrypted bool, cuts int) {
	rng := rand.New(rand.NewPCG(seed, 42))
	p := pooltest.NewPower()
	r := newRig(t, p, 2*recordBytes, sector, encrypted)
	m := newModel(windowAt, window)
	for cut := range cuts {
		d := r.open()
		if err := m.recover(read(t, d, windowAt, window)); err != nil {
			t.Fatalf("after cut %d: %v", cut, err)
		}
		p.CutAfter(rng.IntN(120))
		var err error
		for err == nil {
			err = m.step(rng, d)
		}
		if !errors.Is(err, pooltest.ErrPower) {
			t.Fatalf("before cut %d: %v", cut+1, err)
		}
		p.Restart(rng)
	}
}

// The same without cuts, deeper, with restarts in between: the device is a disk.
func TestRandomOperations(t *testing.T) {
	for _, encrypted := range []bool{true, false} {
		rng := rand.New(rand.NewPCG(7, 7))
		r := newRig(t, pooltest.NewPower(), 2*recordBytes, sector, encrypted)
		m := newModel(windowAt, window)
		rounds := 20
		if testing.Short() {
			rounds = 3
		}
		for range rounds {
			d := r.open()
			expect(t, d, windowAt, m.now)
			for range 200 {
				if err := m.step(rng, d); err != nil {
					t.Fatal(err)
				}
			}
			sync(t, d)
		}
	}
}
