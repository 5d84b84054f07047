package layer

import (
	"errors"
	"sync"
	"syscall"
	"testing"
)

// A flush that panics is an error to those who joined it, and the next one runs.
func TestFlushGroupOutlivesAPanic(t *testing.T) {
	var g flushGroup
	flush := func(sync func() error) (err error) {
		defer func() {
			if recover() != nil {
				err = errors.New("panic")
			}
		}()
		return g.do(sync)
	}
	running, joined, release := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = flush(func() error { close(running); <-release; return nil })
	})
	<-running
	wg.Go(func() {
		if err := flush(func() error { <-joined; panic("on purpose") }); err == nil {
			t.Error("the panic was swallowed")
		}
	})
	for g.waiting() == nil {
	}
	wg.Go(func() {
		r := g.waiting()
		close(release)
		close(joined)
		<-r.done
		if !errors.Is(r.err, syscall.EIO) {
			t.Errorf("who waited was told %v", r.err)
		}
	})
	wg.Wait()
	if err := flush(func() error { return nil }); err != nil {
		t.Errorf("the next flush: %v", err)
	}
}

// waiting is the round that gathers while another runs.
func (g *flushGroup) waiting() *round {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.next
}
