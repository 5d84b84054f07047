package nbd

import "sync/atomic"

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
// large request is not starved by small ones: nobody overtakes it. Nobody locks anything while there is room.
type budget struct {
	size    int64
	used    atomic.Int64
	user    *purse
	waiting atomic.Bool
	given   chan struct{}
}

func newBudget(n int, user *purse) *budget {
	return &budget{size: int64(n), user: user, given: make(chan struct{}, 1)}
}

// try takes n bytes if they are free.
func (b *budget) try(n int) bool {
	if b.used.Load()+int64(n) > b.size || !b.user.take(n) {
		return false
	}
	b.used.Add(int64(n))
	return true
}

// take waits until n bytes are free. Replies that are sent, or given up with their connection, free them. It waits for
// this connection's own replies alone, never for another client: where the user's other connections leave no room and
// nothing of this one is in flight, a small request gets its memory all the same and a large one is told no.
func (b *budget) take(n int) bool {
	for !b.try(n) {
		// What is given from here on leaves a token; what was given before is seen by looking once more.
		b.waiting.Store(true)
		if b.used.Load() > 0 {
			if b.try(n) {
				return true
			}
			<-b.given
			continue
		}
		if n > smallRequest {
			return b.try(n)
		}
		b.force(n)
		return true
	}
	return true
}

// force takes n bytes whether they are free or not.
func (b *budget) force(n int) {
	b.user.force(n)
	b.used.Add(int64(n))
}

func (b *budget) give(n int) {
	if n == 0 {
		return
	}
	b.user.give(n)
	b.used.Add(int64(-n))
	if b.waiting.Load() && b.waiting.Swap(false) {
		select {
		case b.given <- struct{}{}:
		default: // a token is there already
		}
	}
}
