package daemon

import (
	"context"
	"sync"
	"time"

	"nbdcrypt/pkg/refusal"
)

// Each call leaves a record in the audit log, so that somebody without any right could fill the disk with refusals.
// After paceBurst of them at once a user's further calls wait, to one every paceEvery.
const (
	paceBurst = 100
	paceEvery = 500 * time.Millisecond
	// paceUsers is how many users are remembered before those who have waited long enough are forgotten.
	paceUsers = 1000
)

// pace slows those down whose calls are refused again and again.
type pace struct {
	now   func() time.Time
	ended chan struct{}

	mu sync.Mutex
	// owes is when a user would have made its calls at one every paceEvery.
	owes map[uint32]time.Time
}

func newPace() *pace {
	return &pace{now: time.Now, ended: make(chan struct{}), owes: map[uint32]time.Time{}}
}

// delay is how long a user's next call has to wait.
func (p *pace) delay(uid uint32) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	owes, known := p.owes[uid]
	if !known {
		return 0
	}
	return owes.Add(-paceBurst * paceEvery).Sub(p.now())
}

// charge counts a call that was refused.
func (p *pace) charge(uid uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, owes := p.now(), p.owes[uid]
	if len(p.owes) > paceUsers {
		for other, until := range p.owes {
			if until.Before(now) {
				delete(p.owes, other)
			}
		}
	}
	if owes.Before(now) {
		owes = now
	}
	p.owes[uid] = owes.Add(paceEvery)
}

// wait waits for a user's turn. Nothing was looked at yet when it fails.
func (p *pace) wait(ctx context.Context, uid uint32) error {
	delay := p.delay(uid)
	if delay <= 0 {
		return nil
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return refusal.New(refusal.Failed, "ask less often", "nobody waited for the answer: %w", ctx.Err())
	case <-p.ended:
		return errStopping()
	}
}

// end lets nobody wait any more.
func (p *pace) end() { close(p.ended) }
