package layer

import "sync"

// rangeLock lets readers of a range share it and a writer have it alone. It is fair: who came first goes first, so
// that neither side starves.
type rangeLock struct {
	mu    sync.Mutex
	spans []*span // in order of arrival
}

// span is one holder or waiter of [lo, hi).
type span struct {
	lo, hi int64
	write  bool
	wake   chan struct{}
}

func (s *span) conflicts(t *span) bool {
	return s.lo < t.hi && t.lo < s.hi && (s.write || t.write)
}

// lock waits until no earlier span conflicts.
func (l *rangeLock) lock(lo, hi int64, write bool) *span {
	s := &span{lo: lo, hi: hi, write: write}
	l.mu.Lock()
	l.spans = append(l.spans, s)
	for l.blocked(s) {
		wake := make(chan struct{})
		s.wake = wake // who closes it takes it out of the span
		l.mu.Unlock()
		<-wake
		l.mu.Lock()
	}
	l.mu.Unlock()
	return s
}

// blocked tells whether a span before s conflicts with it. The caller holds mu.
func (l *rangeLock) blocked(s *span) bool {
	for _, t := range l.spans {
		if t == s {
			return false
		}
		if t.conflicts(s) {
			return true
		}
	}
	return false
}

// unlock takes s out and wakes the waiters that it may have held up.
func (l *rangeLock) unlock(s *span) {
	l.mu.Lock()
	defer l.mu.Unlock()
	keep := l.spans[:0]
	for _, t := range l.spans {
		if t == s {
			continue
		}
		keep = append(keep, t)
		if t.wake != nil && t.conflicts(s) {
			close(t.wake)
			t.wake = nil
		}
	}
	l.spans[len(l.spans)-1] = nil
	l.spans = keep
}
