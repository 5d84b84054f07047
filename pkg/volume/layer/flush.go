package layer

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
)

// flushGroup lets flushes that coincide share one sync: a caller joins only one that has not started.
type flushGroup struct {
	mu      sync.Mutex
	running bool
	next    *round
}

// round is one sync and those who wait for it.
type round struct {
	start chan struct{} // closed when its leader may begin
	done  chan struct{}
	err   error
}

// idle tells whether no flush runs and none begins while clean is asked, which it answers too.
func (g *flushGroup) idle(clean func() bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.running && clean()
}

// do runs sync for the caller, or has it run by another caller that came at the same time.
func (g *flushGroup) do(sync func() error) error {
	g.mu.Lock()
	if r := g.next; r != nil {
		g.mu.Unlock()
		<-r.done
		return r.err
	}
	r := &round{start: make(chan struct{}), done: make(chan struct{})}
	if g.running {
		g.next = r
	} else {
		g.running = true
		close(r.start)
	}
	g.mu.Unlock()
	<-r.start
	r.err = errInterrupted
	defer func() {
		g.finish()
		close(r.done)
	}()
	r.err = sync()
	return r.err
}

// errInterrupted is for those who wait for a sync that panics: nobody waits for ever, and nobody is told that it worked.
var errInterrupted = fmt.Errorf("layer: a flush ended without a result: %w", syscall.EIO)

// finish lets the round that has gathered meanwhile begin. From then on nobody joins it.
func (g *flushGroup) finish() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.next == nil {
		g.running = false
		return
	}
	close(g.next.start)
	g.next = nil
}

// Flush returns once everything that was answered before the call is durable.
func (l *Layer) Flush() error {
	// A flush that runs has taken marks away that are not durable yet, so it must not be missed.
	if l.flushes.idle(l.clean) {
		return l.Failed()
	}
	return l.flushes.do(l.flush)
}

// clean tells whether a flush would find nothing to do.
func (l *Layer) clean() bool { return !l.written.Load() && l.blocks.clean() && l.punches.empty() }

// flush follows the first rule of "Order of writes" in docs/disk-format.md, then gives back space.
func (l *Layer) flush() error {
	if err := l.Failed(); err != nil {
		return err
	}
	punches := l.punches.take()
	changes := l.blocks.takeOff()
	landed := false
	defer func() {
		if !landed { // a panic: what was taken off is written by no later flush
			_ = l.fail(errInterrupted)
		}
	}()
	err := l.syncAll(changes)
	l.blocks.land(changes, err == nil)
	landed = true
	if err != nil {
		l.punches.put(punches)
		return err
	}
	l.punchSoon(punches)
	return nil
}

func (l *Layer) syncAll(changes []change) error {
	if l.written.Swap(false) {
		if err := l.data.Flush(); err != nil {
			return l.fail(err)
		}
	}
	if len(changes) == 0 {
		return l.Failed()
	}
	l.mapWriting.Lock()
	defer l.mapWriting.Unlock()
	// Before it is synced the map may run out of room without any harm: the generation before stays in force.
	if err := l.blocks.write(changes); errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return err
	} else if err != nil {
		return l.fail(err)
	}
	if err := l.mapVol.Flush(); err != nil {
		return l.fail(err)
	}
	return l.Failed()
}
