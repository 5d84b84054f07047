package nbd

import (
	"log/slog"
	"sync"
	"time"
)

// maxComplaintsPerSecond bounds what all connections together can write into the log: connections are cheap.
const maxComplaintsPerSecond = 20

// pace lets so many things happen a second, and counts the others.
type pace struct {
	mu     sync.Mutex
	second time.Time
	done   int
	left   int
}

// allow tells whether one more may happen now, and how many were left out in the seconds before.
func (p *pace) allow(now time.Time) (ok bool, leftOut int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if second := now.Truncate(time.Second); !second.Equal(p.second) {
		p.second, p.done = second, 0
		leftOut, p.left = p.left, 0
	}
	if p.done >= maxComplaintsPerSecond {
		p.left++
		return false, 0
	}
	p.done++
	return true, leftOut
}

// complain logs what clients did, so often that they can't fill the log.
func (s *Server) complain(log *slog.Logger, what string, args ...any) {
	ok, leftOut := s.complaints.allow(time.Now())
	if leftOut > 0 {
		log.Warn("nbd: complaints left out of the log", "count", leftOut)
	}
	if ok {
		log.Warn("nbd: "+what, args...)
	}
}
