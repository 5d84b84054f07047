package daemon

import (
	"context"
	"sync"
	"time"

	"nbdcrypt/pkg/refusal"
)

const (
	// maxGuesses is how many passphrases of one user may wait for their turn.
	maxGuesses = 4
	// After the first wrong passphrase a user waits guessDelay, after each further one twice as long, up to guessLimit; who
	// gives none for guessForget has none to answer for.
	guessDelay  = time.Second
	guessLimit  = 30 * time.Second
	guessForget = 10 * time.Minute
)

// guesses lets passphrases be tried one at a time, because each takes a processor and much memory, and those slowly who give
// wrong ones. They wait alone: somebody who guesses does not keep others from unlocking.
type guesses struct {
	now  func() time.Time
	turn chan struct{} // holds a token while somebody tries

	mu   sync.Mutex
	user map[uint32]*guesser
}

type guesser struct {
	waiting, wrong int
	last           time.Time // when the last wrong one was given
}

func newGuesses() *guesses {
	return &guesses{now: time.Now, turn: make(chan struct{}, 1), user: map[uint32]*guesser{}}
}

// enter counts a user's call in until leave is called.
func (g *guesses) enter(uid uint32) (leave func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	u := g.user[uid]
	if u == nil {
		u = &guesser{}
		g.user[uid] = u
	}
	if u.waiting >= maxGuesses {
		return nil, refusal.New(refusal.Busy, "wait until they are answered", "%d passphrases of yours wait to be tried already", u.waiting)
	}
	u.waiting++
	return func() { g.leave(uid) }, nil
}

func (g *guesses) leave(uid uint32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if u := g.user[uid]; u.waiting == 1 && u.wrong == 0 {
		delete(g.user, uid)
	} else {
		u.waiting--
	}
}

// try runs one guess of a user who has entered, when its turn has come.
func (g *guesses) try(ctx context.Context, uid uint32, guess func() error) error {
	if err := g.wait(ctx, uid); err != nil {
		return err
	}
	defer func() { <-g.turn }()
	err := guess()
	g.note(uid, refusal.CodeOf(err) == refusal.Locked)
	return err
}

// wait takes the turn. The delay is looked at again then: another guess of the same user may have been wrong meanwhile.
func (g *guesses) wait(ctx context.Context, uid uint32) error {
	for {
		timer := time.NewTimer(g.delay(uid))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return errStopping()
		}
		select {
		case g.turn <- struct{}{}:
		case <-ctx.Done():
			return errStopping()
		}
		if g.delay(uid) <= 0 {
			return nil
		}
		<-g.turn
	}
}

// delay is how long a user's next guess has to wait.
func (g *guesses) delay(uid uint32) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	u := g.user[uid]
	since := g.now().Sub(u.last)
	if since > guessForget {
		u.wrong = 0
	}
	if u.wrong == 0 {
		return 0
	}
	return min(guessDelay<<min(u.wrong-1, 10), guessLimit) - since
}

func (g *guesses) note(uid uint32, wrong bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	u := g.user[uid]
	if !wrong {
		u.wrong = 0
		return
	}
	u.wrong++
	u.last = g.now()
}
