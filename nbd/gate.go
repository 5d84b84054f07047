package nbd

import "sync/atomic"

// gateShut is the bit of a gate's counter that says it is shut.
const gateShut = int64(1) << 62

// gate counts what is inside and can be shut for ever. Once it is shut and empty, nothing enters again: that is the
// moment after which a device may lose its key.
type gate struct {
	state atomic.Int64
	first atomic.Bool
	empty chan struct{}
}

func newGate() *gate { return &gate{empty: make(chan struct{})} }

// enter tells whether the caller is inside; it must leave then.
func (g *gate) enter() bool {
	if g.state.Add(1)&gateShut == 0 {
		return true
	}
	g.leave()
	return false
}

func (g *gate) leave() { g.settle(g.state.Add(-1)) }

// shut lets nobody in any more; empty is closed when the last one has left.
func (g *gate) shut() { g.settle(g.state.Or(gateShut) | gateShut) }

func (g *gate) isShut() bool { return g.state.Load()&gateShut != 0 }

// settle closes empty the first time the gate is both shut and empty. Those turned away later pass through that
// state again.
func (g *gate) settle(state int64) {
	if state == gateShut && g.first.CompareAndSwap(false, true) {
		close(g.empty)
	}
}
