package nbd

import (
	"sync"
	"sync/atomic"
)

const (
	// maxUserPayload is what all connections of one user who is not root may have in memory together, give or take a
	// small request on each.
	maxUserPayload = 1 << 30
	// smallRequest is served however much memory its user holds, so that a connection always gets on.
	smallRequest = 1 << 20
)

// purse counts the payload bytes that one user's connections have in memory. A nil purse counts nothing.
type purse struct {
	used  atomic.Int64
	limit int64
}

// take tells whether n bytes were within the limit and are taken.
func (p *purse) take(n int) bool {
	if p == nil || p.used.Add(int64(n)) <= p.limit {
		return true
	}
	p.used.Add(int64(-n))
	return false
}

// force takes n bytes over the limit.
func (p *purse) force(n int) {
	if p != nil {
		p.used.Add(int64(n))
	}
}

func (p *purse) give(n int) { p.force(-n) }

// budget bounds the payload bytes that one connection may have in memory. One goroutine takes, many give, so a
// large request is not starved by small ones: nobody overtakes it.
type budget struct {
	mu    sync.Mutex
	given sync.Cond
	size  int
	free  int
	user  *purse
}

func newBudget(n int, user *purse) *budget {
	b := &budget{size: n, free: n, user: user}
	b.given.L = &b.mu
	return b
}

// take waits until n bytes are free. Replies that are sent, or given up with their connection, free them. It waits for
// this connection's own replies alone, never for another client: where the user's other connections leave no room and
// nothing of this one is in flight, a small request gets its memory all the same and a large one is told no.
func (b *budget) take(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.free < n || !b.user.take(n) {
		if b.free == b.size {
			if n > smallRequest {
				return false
			}
			b.user.force(n)
			break
		}
		b.given.Wait()
	}
	b.free -= n
	return true
}

func (b *budget) give(n int) {
	b.user.give(n)
	b.mu.Lock()
	b.free += n
	b.mu.Unlock()
	b.given.Signal()
}
