package daemon

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"nbdcrypt/pkg/refusal"
)

var errWrong = refusal.New(refusal.Locked, "type it again", "wrong")

// guess enters and tries once.
func (g *guesses) guess(ctx context.Context, uid uint32, try func() error) error {
	leave, err := g.enter(uid)
	if err != nil {
		return err
	}
	defer leave()
	return g.try(ctx, uid, try)
}

// Each wrong passphrase makes that user's next one wait, longer each time and not without end; a right one ends that, and so
// does time. Other failures are no guesses, and other users don't wait.
func TestWrongPassphrasesArePaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuesses()
		took := func(uid uint32, answer error) time.Duration {
			before := time.Now()
			if err := g.guess(t.Context(), uid, func() error { return answer }); err != answer {
				t.Errorf("answered %v", err)
			}
			return time.Since(before)
		}
		for i, want := range []time.Duration{0, 1, 2, 4, 8, 16, 30, 30} {
			if got := took(7, errWrong); got != want*time.Second {
				t.Errorf("guess %d waited %v, want %v", i, got, want*time.Second)
			}
			if got := took(8, errors.New("no memory")); got != 0 {
				t.Errorf("another user waited %v", got)
			}
		}
		time.Sleep(20 * time.Second)
		if got := took(7, nil); got != 10*time.Second {
			t.Errorf("the rest of the wait was %v", got)
		}
		if got := took(7, errWrong); got != 0 {
			t.Errorf("after a right one it waited %v", got)
		}
		time.Sleep(guessForget + time.Second)
		if got := took(7, nil); got != 0 || len(g.user) != 0 {
			t.Errorf("after a long time it waited %v, and %d users are remembered", got, len(g.user))
		}
	})
}

// Passphrases are tried one at a time, few of one user wait, and the wait ends with the daemon.
func TestGuessesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuesses()
		var running, ended, cut atomic.Int32
		var wg sync.WaitGroup
		ctx, stop := context.WithCancel(t.Context())
		for uid := range uint32(3) {
			wg.Go(func() {
				err := g.guess(ctx, uid, func() error {
					if running.Add(1) > 1 {
						t.Error("two run at once")
					}
					time.Sleep(time.Minute)
					running.Add(-1)
					return nil
				})
				if refusal.CodeOf(err) == refusal.Unreachable {
					cut.Add(1)
				} else if err == nil {
					ended.Add(1)
				}
			})
		}
		synctest.Wait()
		for range maxGuesses - 1 { // one of this user's is there already
			if _, err := g.enter(0); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := g.enter(0); refusal.CodeOf(err) != refusal.Busy {
			t.Errorf("one too many: %v", err)
		}
		time.Sleep(90 * time.Second)
		stop()
		wg.Wait()
		if ended.Load() != 2 || cut.Load() != 1 {
			t.Errorf("%d came to their end, %d were cut short by the daemon's", ended.Load(), cut.Load())
		}
	})
}

// Guesses of one user that came together don't get round the wait by having been there before the first was wrong.
func TestGuessesTogetherWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, before := newGuesses(), time.Now()
		var wg sync.WaitGroup
		for range maxGuesses {
			wg.Go(func() { _ = g.guess(t.Context(), 7, func() error { return errWrong }) })
		}
		wg.Wait()
		if took := time.Since(before); took != 7*time.Second {
			t.Errorf("%d guesses took %v", maxGuesses, took)
		}
	})
}
