package nbd

import "sync"

// budget bounds the payload bytes that one connection may have in memory. One goroutine takes, many give, so a
// large request is not starved by small ones: nobody overtakes it.
type budget struct {
	mu    sync.Mutex
	given sync.Cond
	free  int
}

func newBudget(n int) *budget {
	b := &budget{free: n}
	b.given.L = &b.mu
	return b
}

// take waits until n bytes are free. Replies that are sent, or given up with their connection, free them.
func (b *budget) take(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.free < n {
		b.given.Wait()
	}
	b.free -= n
}

func (b *budget) give(n int) {
	b.mu.Lock()
	b.free += n
	b.mu.Unlock()
	b.given.Signal()
}
