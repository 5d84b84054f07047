package daemon

import (
	"fmt"
	"sync/atomic"
	"testing"
)

// A call that is still running is never forgotten, however many come after it: its repetition waits for its answer.
func TestRunningCallIsNotRunTwice(t *testing.T) {
	r := newReplays(4)
	slow := replayKey{request: "slow"}
	started, release := make(chan struct{}), make(chan struct{})
	var runs atomic.Int32
	do := func() (int, any, error) {
		runs.Add(1)
		close(started)
		<-release
		return 200, "done", nil
	}
	answers := make(chan any, 2)
	ask := func() { _, body, _ := r.once(slow, do); answers <- body }
	go ask()
	<-started
	for i := range 100 {
		_, _, _ = r.once(replayKey{request: fmt.Sprint(i)}, func() (int, any, error) { return 200, nil, nil })
	}
	if n := r.order.Len(); n > 5 {
		t.Errorf("%d answers are kept", n)
	}
	go ask()
	close(release)
	for range 2 {
		if body := <-answers; body != "done" {
			t.Errorf("answered %v", body)
		}
	}
	if runs.Load() != 1 {
		t.Errorf("it ran %d times", runs.Load())
	}
}
