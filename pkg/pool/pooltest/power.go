// Package pooltest holds what shows that a pool keeps its word, and pools that break it on purpose: one that
// loses power, one that fails where it is told to.
package pooltest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sort"
	"sync"
	"syscall"

	"nbdcrypt/pkg/pool"
)

// sectorSize is what storage writes whole.
const sectorSize = 512

// ErrPower is what every operation answers once the power is off.
var ErrPower = errors.New("pooltest: the power is off")

// Power is a pool in memory that can lose power: of what was not flushed, any sector may come back in any version
// that it had since its last flush.
type Power struct {
	mu      sync.Mutex
	volumes map[string]*disk
	left    int // operations until the power goes, negative for never
	off     bool
	opens   int
	epoch   int // restarts up to now; what was open before one stays dead
	strict  bool
}

type disk struct {
	size   int64
	stable map[int64][]byte   // by sector; absent reads as zeros
	cached map[int64][][]byte // versions since the last flush, newest last
	open   map[*powered]bool
}

// NewPower makes an empty pool.
func NewPower() *Power { return &Power{volumes: map[string]*disk{}, left: -1} }

// Strict makes openings as those of files are: who writes a volume has it alone, and nothing goes through one that was closed.
func (p *Power) Strict() { p.strict = true }

// CutAfter turns the power off when n more operations were begun.
func (p *Power) CutAfter(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left = n
}

// Restart turns the power on again. What each unflushed sector holds is drawn from rng; without one, all of them are as
// they were last flushed.
func (p *Power) Restart(rng *rand.Rand) {
	p.mu.Lock()
	defer p.mu.Unlock()
	names := make([]string, 0, len(p.volumes))
	for name := range p.volumes {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		p.volumes[name].settle(rng)
	}
	p.on()
}

// Resume turns the power on again with all that was written, as if the process alone had been killed.
func (p *Power) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.on()
}

// on has nothing of before the cut live on. The caller holds mu.
func (p *Power) on() {
	for _, d := range p.volumes {
		d.open = map[*powered]bool{}
	}
	p.off, p.left = false, -1
	p.epoch++
}

// Off tells whether the power is off.
func (p *Power) Off() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.off
}

// Step counts an operation of something else that hangs on the same cable.
func (p *Power) Step() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.step()
}

// settle picks for each unflushed sector the old content or one of the newer versions.
func (d *disk) settle(rng *rand.Rand) {
	sectors := make([]int64, 0, len(d.cached))
	for s := range d.cached {
		sectors = append(sectors, s)
	}
	sort.Slice(sectors, func(i, j int) bool { return sectors[i] < sectors[j] })
	for _, s := range sectors {
		if rng == nil {
			break
		}
		if pick := rng.IntN(len(d.cached[s]) + 1); pick > 0 {
			d.stable[s] = d.cached[s][pick-1]
		}
	}
	d.cached = map[int64][][]byte{}
}

// step counts an operation and answers ErrPower once the power is off. The caller holds mu.
func (p *Power) step() error {
	if p.left == 0 {
		p.off = true
	}
	if p.off {
		return fmt.Errorf("%w (%w)", ErrPower, syscall.EIO)
	}
	if p.left > 0 {
		p.left--
	}
	return nil
}

func (p *Power) Capabilities() pool.Capabilities {
	return pool.Capabilities{Discard: true, Reserve: true, FastReserve: true}
}

func (p *Power) Space() (pool.Space, error) { return pool.Space{Total: 1 << 40, Free: 1 << 40}, nil }

func (p *Power) Create(_ context.Context, name string, size int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.step(); err != nil {
		return err
	}
	if p.volumes[name] != nil {
		return pool.ErrExist
	}
	p.volumes[name] = &disk{size: size, stable: map[int64][]byte{}, cached: map[int64][][]byte{}, open: map[*powered]bool{}}
	return nil
}

func (p *Power) Open(_ context.Context, name string, readOnly bool) (pool.Volume, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.volumes[name]
	if d == nil {
		return nil, fmt.Errorf("%w: %s", pool.ErrNotExist, name)
	}
	if p.off {
		return nil, fmt.Errorf("%w (%w)", ErrPower, syscall.EIO)
	}
	for other := range d.open {
		if p.strict && (!readOnly || !other.ro) {
			return nil, fmt.Errorf("%w: %s", pool.ErrInUse, name)
		}
	}
	p.opens++
	id := pool.Identity(fmt.Sprintf("power %d", p.opens))
	v := &powered{pool: p, disk: d, id: id, ro: readOnly, epoch: p.epoch, lost: make(chan struct{})}
	d.open[v] = true
	return v, nil
}

func (p *Power) Delete(_ context.Context, name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.step(); err != nil {
		return err
	}
	if p.volumes[name] == nil {
		return pool.ErrNotExist
	}
	delete(p.volumes, name)
	return nil
}

func (p *Power) List(context.Context) ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []string
	for name := range p.volumes {
		names = append(names, name)
	}
	sort.Strings(names)
	return names, nil
}

// Settle has nothing to tell: what a volume holds is settled when that is opened.
func (p *Power) Settle() error { return nil }

func (p *Power) Fence(context.Context, pool.Identity) error { return nil }

func (p *Power) Segments(string) ([]string, error) { return nil, nil }

// powered is one opening of a volume of a Power pool.
type powered struct {
	pool *Power
	disk *disk
	id   pool.Identity
	ro   bool // opened for reading, or frozen since
	lost chan struct{}

	closed bool
	epoch  int
}

func (v *powered) Identity() pool.Identity { return v.id }
func (v *powered) Lost() <-chan struct{}   { return v.lost }

func (v *powered) Close() error {
	v.pool.mu.Lock()
	defer v.pool.mu.Unlock()
	delete(v.disk.open, v)
	v.closed = true
	return nil
}

func (v *powered) Size() int64 {
	v.pool.mu.Lock()
	defer v.pool.mu.Unlock()
	return v.disk.size
}

// step is the pool's, for as long as the power that the volume was opened under is on.
func (v *powered) step() error {
	if v.epoch != v.pool.epoch {
		return fmt.Errorf("%w (%w)", ErrPower, syscall.EIO)
	}
	if v.closed && v.pool.strict {
		return fmt.Errorf("pooltest: %w", os.ErrClosed)
	}
	return v.pool.step()
}

func (d *disk) sector(s int64) []byte {
	if versions := d.cached[s]; len(versions) > 0 {
		return versions[len(versions)-1]
	}
	if b := d.stable[s]; b != nil {
		return b
	}
	return make([]byte, sectorSize)
}

// begin checks an operation on [off, off+n). The caller holds the pool's lock.
func (v *powered) begin(off, n int64) error {
	if off < 0 || n < 0 || off > v.disk.size-n {
		return fmt.Errorf("pooltest: outside of the volume: %w", syscall.EINVAL)
	}
	return v.step()
}

// change is begin for what changes the volume.
func (v *powered) change(off, n int64) error {
	if v.ro {
		return fmt.Errorf("pooltest: the volume is read-only: %w", syscall.EROFS)
	}
	return v.begin(off, n)
}

func (v *powered) ReadAt(p []byte, off int64) (int, error) {
	v.pool.mu.Lock()
	defer v.pool.mu.Unlock()
	if err := v.begin(off, int64(len(p))); err != nil {
		return 0, err
	}
	for n := 0; n < len(p); {
		at := off + int64(n)
		n += copy(p[n:], v.disk.sector(at / sectorSize)[at%sectorSize:])
	}
	return len(p), nil
}

// ReadAtNowait reads: nothing in memory waits.
func (v *powered) ReadAtNowait(p []byte, off int64) (int, error) { return v.ReadAt(p, off) }

func (v *powered) Prefetch(off, n int64) error {
	v.pool.mu.Lock()
	defer v.pool.mu.Unlock()
	return v.begin(off, n)
}

func (v *powered) WriteOut(off, n int64) error { return v.Prefetch(off, n) }

func (v *powered) WriteAt(p []byte, off int64) (int, error) {
	v.pool.mu.Lock()
	defer v.pool.mu.Unlock()
	if err := v.change(off, int64(len(p))); err != nil {
		return 0, err
	}
	v.disk.put(p, off)
	return len(p), nil
}

// put makes a new version of every sector that p touches.
func (d *disk) put(p []byte, off int64) {
	for n := 0; n < len(p); {
		at := off + int64(n)
		b := bytes.Clone(d.sector(at / sectorSize))
		n += copy(b[at%sectorSize:], p[n:])
		d.cached[at/sectorSize] = append(d.cached[at/sectorSize], b)
	}
}

func (v *powered) WriteAtSync(p []byte, off int64) (int, error) {
	v.pool.mu.Lock()
	defer v.pool.mu.Unlock()
	if err := v.change(off, int64(len(p))); err != nil {
		return 0, err
	}
	v.disk.put(p, off)
	for s := off / sectorSize; s <= (off+int64(len(p))-1)/sectorSize; s++ {
		v.disk.harden(s)
	}
	return len(p), nil
}

func (d *disk) harden(s int64) {
	if versions := d.cached[s]; len(versions) > 0 {
		d.stable[s] = versions[len(versions)-1]
		delete(d.cached, s)
	}
}

func (v *powered) Flush() error {
	v.pool.mu.Lock()
	defer v.pool.mu.Unlock()
	if err := v.step(); err != nil {
		return err
	}
	for s := range v.disk.cached {
		v.disk.harden(s)
	}
	return nil
}

func (v *powered) NextData(off int64) (int64, error) { return off, nil }

func (v *powered) Settle(bool) error { return v.Flush() }

// Discard punches at once and for ever, the worst that a file system may do.
func (v *powered) Discard(off, n int64) error {
	v.pool.mu.Lock()
	defer v.pool.mu.Unlock()
	if err := v.change(off, n); err != nil {
		return err
	}
	for s := off / sectorSize; s < (off+n)/sectorSize; s++ {
		delete(v.disk.stable, s)
		delete(v.disk.cached, s)
	}
	return nil
}

func (v *powered) Reserve(off, n int64) error {
	v.pool.mu.Lock()
	defer v.pool.mu.Unlock()
	return v.change(off, n)
}

// Freeze touches no storage, so it is nothing that a power cut can fall on.
func (v *powered) Freeze() error {
	v.pool.mu.Lock()
	defer v.pool.mu.Unlock()
	v.ro = true
	return nil
}

func (v *powered) Resize(size int64) error {
	v.pool.mu.Lock()
	defer v.pool.mu.Unlock()
	if err := v.change(0, 0); err != nil {
		return err
	}
	v.disk.size = max(v.disk.size, size)
	return nil
}
