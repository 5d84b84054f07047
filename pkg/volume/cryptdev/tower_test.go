package cryptdev_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/uuid"

	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/pool/pooltest"
	"nbdcrypt/pkg/volume/cryptdev"
	"nbdcrypt/pkg/volume/layer"
)

// tower is a disk whose stack changes: what a catalog would know of it, which changes at once and survives everything.
type tower struct {
	t      testing.TB
	size   int64
	levels []*level // top first
	points []point
	device *cryptdev.Device
	writes layer.Options // how layers are opened for writing
	commit func() error  // fails where a catalog would take nothing any more; nil for never
}

// level is a layer; sealed tells that it was made durable after it was frozen.
type level struct {
	*rig
	sealed bool
}

// point is a frozen stack and what it holds.
type point struct {
	levels  []*level
	content []byte
}

func newTower(t testing.TB, p pool.Pool, size int64, encrypted bool) *tower {
	t.Helper()
	w := &tower{t: t, size: size, levels: []*level{{rig: newRig(t, p, size, 512, encrypted)}}}
	w.open()
	return w
}

// open opens the disk as a start does: what was frozen and not sealed is opened for writing once, which settles it.
func (w *tower) open() *cryptdev.Device {
	w.t.Helper()
	for _, l := range w.levels {
		l.closeAll()
	}
	layers := make([]cryptdev.Layer, len(w.levels))
	for i, l := range w.levels {
		if i == 0 {
			l.size = w.size
		}
		o := w.writes
		o.ReadOnly, o.Unclean = l.sealed, true
		layers[i] = l.layer(o)
		if i > 0 && !l.sealed {
			if err := layers[i].Seal(); err != nil {
				w.t.Fatal(err)
			}
			l.sealed = true
		}
	}
	w.device = cryptdev.New(layers, w.size, false)
	return w.device
}

// push freezes the top under a new one; between is called before it is sealed.
func (w *tower) push(between func() error) error {
	top := &level{rig: w.levels[0].beside(w.size)}
	if err := top.create(); err != nil {
		return err
	}
	l, err := top.tryLayer(w.writes)
	if err == nil && w.commit != nil {
		err = w.commit()
	}
	if err != nil {
		top.closeAll()
		return err
	}
	w.levels[0].size = w.size
	w.levels = append([]*level{top}, w.levels...)
	w.device.Push(l)
	if err := errors.Join(between(), w.device.Seal()); err != nil {
		return err
	}
	w.levels[1].sealed = true
	return nil
}

// fill copies into the top what it lacks of the next depth layers, and lets go of those.
func (w *tower) fill(depth int, between func() error) error {
	over := len(w.levels) > depth+1
	for at := int64(0); at < w.size; {
		next, _, err := w.device.CopyUp(at, w.size, depth, over)
		if err != nil {
			return err
		}
		at = next
		if err := between(); err != nil {
			return err
		}
	}
	if err := w.device.Sync(); err != nil {
		return err
	}
	gone := w.levels[1 : depth+1]
	w.levels = append([]*level{w.levels[0]}, w.levels[depth+1:]...)
	return w.replace(gone, nil)
}

// merge puts one new layer in the place of two, the first of which is level at.
func (w *tower) merge(at int) error {
	layers := w.device.Layers()
	merged := &level{rig: w.levels[at].beside(w.levels[at].size)}
	if err := merged.create(); err != nil {
		return err
	}
	top, err := merged.tryLayer(layer.Options{})
	if err != nil {
		return err
	}
	builder := cryptdev.New(append([]cryptdev.Layer{top}, layers[at:]...), merged.size, false)
	for off := int64(0); off < merged.size; {
		if off, _, err = builder.CopyUp(off, merged.size, 2, len(layers) > at+2); err != nil {
			return err
		}
	}
	if err := errors.Join(builder.Sync(), top.Seal()); err != nil {
		return err
	}
	merged.sealed = true
	gone := []*level{w.levels[at], w.levels[at+1]}
	w.levels = append(append(append([]*level{}, w.levels[:at]...), merged), w.levels[at+2:]...)
	return w.replace(gone, []cryptdev.Layer{top})
}

// replace takes layers out of the device and closes them.
func (w *tower) replace(gone []*level, in []cryptdev.Layer) error {
	var ids []uuid.UUID
	for _, l := range gone {
		ids = append(ids, l.header.ID)
	}
	taken, err := w.device.Replace(ids, in)
	for _, l := range taken {
		err = errors.Join(err, l.Close())
	}
	return err
}

// grow makes the disk larger.
func (w *tower) grow(size int64) error {
	if err := w.device.Layers()[0].Resize(size); err != nil {
		return err
	}
	w.size = size
	w.device.Grow(size)
	return nil
}

// look opens a point beside the disk and compares what it holds.
func (w *tower) look(p point, at int64) error {
	var layers []cryptdev.Layer
	for _, l := range p.levels {
		open, err := layer.Open(w.t.Context(), l.pool, l.header, l.size, layer.Options{ReadOnly: true})
		if err != nil {
			return err
		}
		defer open.Close()
		layers = append(layers, cryptdev.Layer{Layer: open, Cipher: l.cipher(), Size: l.size})
	}
	got := make([]byte, len(p.content))
	if _, err := cryptdev.New(layers, p.levels[0].size, true).ReadAt(got, at); err != nil {
		return err
	}
	if !bytes.Equal(got, p.content) {
		return fmt.Errorf("a point of %d layers holds something else", len(p.levels))
	}
	return nil
}

// step plays one random change of the stack, or one operation of the disk.
func (w *tower) step(rng *rand.Rand, m *model) error {
	switch what, depth := rng.IntN(60), len(w.levels)-1; {
	case what < 3 && depth < 6:
		return w.snapshot(rng, m)
	case what < 5 && depth > 0:
		return w.fill(1+rng.IntN(depth), func() error { return m.step(rng, w.device) })
	case what < 7 && depth > 1:
		return w.merge(1 + rng.IntN(depth-1))
	case what == 7 && len(m.now) < window:
		size := w.size + int64(1+rng.IntN((window-len(m.now))/sector))*sector
		if err := w.grow(size); err != nil {
			return err
		}
		m.grow(int(size - m.base))
	case what == 8 && len(w.points) > 0:
		return w.look(w.points[rng.IntN(len(w.points))], m.base)
	}
	if rng.IntN(50) == 0 {
		return m.extents(w.device)
	}
	return m.step(rng, w.device)
}

// extents goes over the extents of the disk: what they call zeros is, and they are as long as all of it.
func (m *model) extents(d *cryptdev.Device) error {
	end := m.base + int64(len(m.now))
	for at := m.base; at < end; {
		n, hole, zero, err := d.Extent(at, end-at)
		if err != nil {
			return err
		}
		if n <= 0 || n > end-at || hole && !zero || zero && !layer.IsZero(m.now[at-m.base:][:n]) {
			return fmt.Errorf("an extent of %d bytes at %d (hole %v, zero %v)", n, at, hole, zero)
		}
		at += n
	}
	return nil
}

// snapshot pushes a new top and keeps what lies below as a point. What it holds is durable once it is there; the disk is used
// before that.
func (w *tower) snapshot(rng *rand.Rand, m *model) error {
	p, marks := point{levels: append([]*level{}, w.levels...), content: bytes.Clone(m.now)}, m.mark()
	err := w.push(func() error {
		for range rng.IntN(6) {
			if err := m.step(rng, w.device); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	m.durableSince(marks)
	w.points = append(w.points, p)
	return nil
}

// Promise 3 and durability rules 1 to 5, 7 and 8, over a stack that is pushed, sealed, filled, merged and grown: after a power cut
// at any operation of the storage every sector holds its last flushed content or a later one, and every point what it held.
func TestPowerCutsOfStacks(t *testing.T) {
	cuts := 40
	if testing.Short() {
		cuts = 10
	}
	for _, encrypted := range []bool{true, false} {
		for seed := range uint64(4) {
			t.Run(fmt.Sprintf("encrypted=%v/seed=%d", encrypted, seed), func(t *testing.T) {
				playStackCuts(t, seed, encrypted, cuts)
			})
		}
	}
}

func playStackCuts(t *testing.T, seed uint64, encrypted bool, cuts int) {
	rng := rand.New(rand.NewPCG(seed, 43))
	p := pooltest.NewPower()
	const first = 5*4096 + 3*sector // the first layers are shorter than those that come
	w := newTower(t, p, windowAt+first, encrypted)
	m := newModel(windowAt, first)
	for cut := range cuts {
		if err := m.recover(read(t, w.open(), m.base, len(m.now))); err != nil {
			t.Fatalf("after cut %d: %v", cut, err)
		}
		for _, point := range w.points {
			if err := w.look(point, m.base); err != nil {
				t.Fatalf("after cut %d: %v", cut, err)
			}
		}
		w.points = w.points[max(0, len(w.points)-4):]
		p.CutAfter(rng.IntN(500))
		var err error
		for err == nil {
			err = w.step(rng, m)
		}
		if !errors.Is(err, pooltest.ErrPower) {
			t.Fatalf("before cut %d: %v", cut+1, err)
		}
		p.Restart(rng)
	}
}
