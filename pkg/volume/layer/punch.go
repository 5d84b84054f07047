package layer

import (
	"sync"
	"time"
)

// trimDelay is how long given-up space may wait for a flush that the client never sends.
const trimDelay = time.Second

// trimTimer flushes once a while after the first trim since the last time, or as soon as a journal is long.
type trimTimer struct {
	mu      sync.Mutex
	timer   *time.Timer
	running sync.WaitGroup
	stopped bool
}

func (t *trimTimer) start(after time.Duration, flush func() error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timer != nil || t.stopped {
		return
	}
	t.running.Add(1)
	t.timer = time.AfterFunc(after, func() {
		defer t.running.Done()
		t.mu.Lock()
		t.timer = nil
		t.mu.Unlock()
		_ = flush() // a failure is remembered, and told to who writes or flushes
	})
}

// stop returns when no flush of the timer runs or will run.
func (t *trimTimer) stop() {
	t.mu.Lock()
	t.stopped = true
	if t.timer != nil && t.timer.Stop() {
		t.running.Done()
	}
	t.mu.Unlock()
	t.running.Wait()
}

// extent is a range of bytes, whole blocks.
type extent struct{ off, n int64 }

// punchList is the space that was given up and may be given back once the map says so durably.
type punchList struct {
	mu      sync.Mutex
	extents []extent
}

// add notes an extent, grown into the last one where they touch.
func (p *punchList) add(off, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := len(p.extents) - 1; i >= 0 && p.extents[i].off+p.extents[i].n == off {
		p.extents[i].n += n
		return
	}
	p.extents = append(p.extents, extent{off, n})
}

func (p *punchList) take() []extent {
	p.mu.Lock()
	defer p.mu.Unlock()
	taken := p.extents
	p.extents = nil
	return taken
}

func (p *punchList) empty() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.extents) == 0
}

func (p *punchList) put(extents []extent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.extents = append(extents, p.extents...)
}

// punchStep bounds how much is locked at a time; reads wait for it.
const punchStep = 4 << 20

// punchSoon punches behind the flush, which has nothing more to wait for: giving back many small extents takes a while.
func (l *Layer) punchSoon(extents []extent) {
	if len(extents) > 0 {
		l.punching.Go(func() { l.punch(extents) })
	}
}

// punch gives back the blocks of the extents that are Zero in memory and on disk. It is advice: an error costs space.
func (l *Layer) punch(extents []extent) {
	for _, e := range extents {
		for off := e.off; off < e.off+e.n; off += punchStep {
			l.punchStep(off, min(punchStep, e.off+e.n-off))
		}
	}
}

func (l *Layer) punchStep(off, n int64) {
	defer l.Lock(off, n, true).Unlock()
	for at := off; at < off+n; {
		state, end, err := l.Run(at, off+n, true)
		if err != nil {
			return
		}
		if state == Zero {
			l.discardSettled(at, end)
		}
		at = end
	}
}

// discardSettled discards what is Zero in every version of the map, block runs at a time.
func (l *Layer) discardSettled(off, end int64) {
	if l.blocks.settled(off/BlockSize, (end-off)/BlockSize, Zero) {
		_ = l.data.Discard(off, end-off)
		return
	}
	for ; off < end; off += BlockSize {
		if l.blocks.settled(off/BlockSize, 1, Zero) {
			_ = l.data.Discard(off, BlockSize)
		}
	}
}
