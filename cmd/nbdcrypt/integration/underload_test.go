//go:build integration

package integration

import (
	"errors"
	"syscall"
	"testing"
)

// SIGTERM under load ends with exit 0 and within the daemon's bound; every acknowledged write is there, flushed or not.
func TestStoppedUnderLoad(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.create("vol", "16M", "--encrypted")
	l := newLoad(512)
	for range 3 {
		wait := l.start(t, d.attach("vol"))
		l.waitForFlushes(t, 20)
		d.stop()
		wait()
		l.drained()
		d.start()
		l.verify(t, d.attach("vol"))
		d.do("detach", "vol")
	}
}

// Detach while clients write: each hears ESHUTDOWN, and what was acknowledged is there.
func TestDetachedUnderLoad(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.create("vol", "16M", "--encrypted")
	l := newLoad(512)
	for range 3 {
		wait := l.start(t, d.attach("vol"))
		l.waitForFlushes(t, 20)
		d.do("detach", "vol")
		wait()
		for _, w := range l.workers {
			if !errors.Is(w.ended, syscall.ESHUTDOWN) {
				t.Errorf("a client heard %v, not ESHUTDOWN", w.ended)
			}
		}
		l.drained()
		l.verify(t, d.attach("vol"))
		d.do("detach", "vol")
	}
	d.checkClean()
}
