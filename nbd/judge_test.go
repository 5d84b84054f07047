package nbd_test

import (
	"sync/atomic"
	"testing"
	"time"

	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdtest"
)

// TestQuickSyncsAreForTheLoop: a device that syncs at once is synced by the loop after a while, and no more once a sync
// had to wait: then other requests are answered before it.
func TestQuickSyncsAreForTheLoop(t *testing.T) {
	var waits atomic.Bool
	release := make(chan struct{})
	h, e := hooked(t, func(op nbdtest.Op, _, _ int64) error {
		if op == nbdtest.Sync && waits.Load() {
			<-release
		}
		return nil
	})
	c := h.enter(t, "vol")
	c.do(request{command: cmdFlush}, ok)
	if e.SyncsNow() {
		t.Fatal("one quick sync is taken for a sign")
	}
	eventually(t, "syncs are done by the loop", func() bool {
		c.do(request{command: cmdWrite, flags: flagFUA, length: 1}, ok, 1)
		c.do(request{command: cmdFlush}, ok)
		return e.SyncsNow()
	})
	e.SyncWasSlow()
	waits.Store(true)
	c.send(request{command: cmdFlush, cookie: 7}.bytes())
	c.do(request{command: cmdRead, length: 0}, ok)
	close(release)
	if cookie, errno := c.answered(); errno != ok || cookie != 7 {
		t.Errorf("the flush was answered as %d with %v", cookie, errno)
	}
}

// TestReadsWithFUAAreNoSyncs: they tell nothing of how quick those are.
func TestReadsWithFUAAreNoSyncs(t *testing.T) {
	h, e := hooked(t, func(nbdtest.Op, int64, int64) error { return nil })
	c := h.enter(t, "vol")
	for range 100 {
		c.do(request{command: cmdRead, flags: flagFUA, length: 1}, ok)
		c.do(request{command: cmdCache, flags: flagFUA, length: 1}, ok)
	}
	if e.SyncsNow() {
		t.Error("reads are taken for syncs")
	}
}

// TestALongWriteTookAllOfItsPieces: the counters are told of the whole of it, and not of the last piece.
func TestALongWriteTookAllOfItsPieces(t *testing.T) {
	const pause = 20 * time.Millisecond
	for name, slow := range map[string]bool{"by the loop": false, "by workers": true} {
		t.Run(name, func(t *testing.T) {
			h, e := hooked(t, func(nbdtest.Op, int64, int64) error { return nil })
			if slow {
				e.WritesAreSlow()
			}
			c := h.enter(t, "vol")
			c.send(request{command: cmdWrite, cookie: 1, length: diskSize}.bytes(make([]byte, diskSize/2)...))
			time.Sleep(pause)
			c.send(make([]byte, diskSize/2))
			c.expect(1, ok)
			eventually(t, "it is counted", func() bool { return e.Stats().InFlight == 0 })
			for _, of := range e.Stats().Commands {
				if of.Name == "write" && of.Seconds < pause.Seconds()/2 {
					t.Errorf("it took %v s", of.Seconds)
				}
			}
		})
	}
}

// TestBusyTellsHowDeep: a client that waits for each answer is busy, and not deep; one that sends many requests at once is both.
func TestBusyTellsHowDeep(t *testing.T) {
	h := serve(t, nbdtest.NewExports(nbd.NewExport("vol", nbdtest.NewMemory(diskSize), nbd.Options{})))
	c := h.enter(t, "vol")
	const n = 40
	for range n {
		c.do(request{command: cmdRead, length: 0}, ok)
	}
	if busy, deep := h.server.Busy(n); busy != 1 || deep != 0 {
		t.Errorf("one request at a time: %d busy, %d deep", busy, deep)
	}
	var all []byte
	for range n {
		all = append(all, request{command: cmdRead, length: 0}.bytes()...)
	}
	c.send(all)
	for range n {
		c.answered()
	}
	if busy, deep := h.server.Busy(n); busy != 1 || deep != 1 {
		t.Errorf("%d requests at once: %d busy, %d deep", n, busy, deep)
	}
	if busy, deep := h.server.Busy(1); busy != 0 || deep != 0 {
		t.Errorf("none since: %d busy, %d deep", busy, deep)
	}
}
