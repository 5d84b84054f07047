package cryptdev

import (
	"fmt"
	"math"
	"slices"
	"syscall"

	"github.com/google/uuid"

	"nbdcrypt/pkg/volume/layer"
)

// stack is the layers of a disk at one moment. It never changes; who changes the disk puts another in its place.
type stack struct {
	layers []Layer // top first
	// unsealed is how many layers right below the top were pushed down and may still hold what is not durable.
	unsealed int
	// paused tells that another stack is about to come: who begins now waits until it is closed, and asks again.
	paused chan struct{}
}

func (s *stack) top() *Layer { return &s.layers[0] }

// open are the layers that may have something to make durable.
func (s *stack) open() []Layer { return s.layers[:1+s.unsealed] }

// failed is the first sync that failed: a layer that was pushed down counts until it is sealed.
func (s *stack) failed() error {
	for i := range s.open() {
		if err := s.layers[i].Failed(); err != nil {
			return err
		}
	}
	return nil
}

// flush makes durable what was answered, the oldest first: what was written before the top was there lies below it.
func (s *stack) flush() error {
	for i := s.unsealed; i >= 0; i-- {
		if err := s.layers[i].Flush(); err != nil {
			return err
		}
	}
	return nil
}

// lock gives the disk's stack with [off, off+n) locked. The locks are those of the top; where the stack was changed while we
// waited for them, they protect nothing any more.
func (d *Device) lock(off, n int64, write bool) (*stack, layer.Held) {
	for {
		st := d.stack.Load()
		if st.paused != nil {
			<-st.paused
			continue
		}
		held := st.top().Lock(off, n, write)
		if d.stack.Load() == st {
			return st, held
		}
		held.Unlock()
	}
}

// tryLock is lock for reading where nobody has to be waited for.
func (d *Device) tryLock(off, n int64) (*stack, layer.Held, bool) {
	st := d.stack.Load()
	held, ok := st.top().TryLock(off, n, false)
	if ok && (st.paused != nil || d.stack.Load() != st) {
		held.Unlock()
		ok = false
	}
	return st, held, ok
}

// change puts what follows the stack in its place while no call is at work. Those that come are kept out from the start, so
// that it takes as long as the longest that is at work, and no longer. The caller holds changing.
func (d *Device) change(follows func(*stack) *stack) {
	st := d.stack.Load()
	paused := make(chan struct{})
	d.stack.Store(&stack{st.layers, st.unsealed, paused})
	held := st.top().Lock(0, math.MaxInt64, true)
	d.stack.Store(follows(st))
	held.Unlock()
	close(paused)
}

// Layers are the disk's layers, top first.
func (d *Device) Layers() []Layer { return slices.Clone(d.stack.Load().layers) }

// Push puts a new top over the old one, of which every write that was answered is a part and no later one is. It waits for
// the calls that are at work, for nothing else.
func (d *Device) Push(top Layer) {
	d.changing.Lock()
	defer d.changing.Unlock()
	d.change(func(st *stack) *stack {
		layers := slices.Concat([]Layer{top}, st.layers)
		layers[1].Size = d.size.Load()
		return &stack{layers: layers, unsealed: st.unsealed + 1}
	})
}

// Seal makes what was pushed down durable, and nothing writes there again. Until it has succeeded Sync covers those layers.
func (d *Device) Seal() error {
	d.changing.Lock()
	defer d.changing.Unlock()
	st := d.stack.Load()
	for ; st.unsealed > 0; st = d.stack.Load() {
		if err := st.layers[st.unsealed].Seal(); err != nil {
			return err
		}
		d.stack.Store(&stack{layers: st.layers, unsealed: st.unsealed - 1})
	}
	return nil
}

// Replace puts layers in the place of others that follow each other below the top, and are sealed. It returns those that
// were taken out, which no call uses any more.
func (d *Device) Replace(out []uuid.UUID, in []Layer) (taken []Layer, err error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	at, err := d.stack.Load().find(out)
	if err != nil {
		return nil, err
	}
	d.change(func(st *stack) *stack {
		taken = slices.Clone(st.layers[at : at+len(out)])
		return &stack{layers: slices.Concat(st.layers[:at], in, st.layers[at+len(out):]), unsealed: st.unsealed}
	})
	d.using.Lock() // whoever looks without a lock has the new stack from here on
	defer d.using.Unlock()
	return taken, nil
}

// find tells where these layers stand, one below the other.
func (s *stack) find(ids []uuid.UUID) (int, error) {
	at := slices.IndexFunc(s.layers, func(l Layer) bool { return len(ids) > 0 && l.ID == ids[0] })
	if at <= s.unsealed || at+len(ids) > len(s.layers) {
		return 0, fmt.Errorf("cryptdev: layers %v are not sealed layers of the disk: %w", ids, syscall.EINVAL)
	}
	for i, id := range ids {
		if s.layers[at+i].ID != id {
			return 0, fmt.Errorf("cryptdev: layer %s does not follow: %w", id, syscall.EINVAL)
		}
	}
	return at, nil
}
