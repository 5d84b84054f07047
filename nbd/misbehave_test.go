package nbd_test

import (
	"bytes"
	"os"
	"runtime"
	"sync"
	"testing"

	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdtest"
)

// descriptors is how many files this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestClientsThatMisbehave: while some stall, flood, half-close or vanish with much in flight, another gets on, and when
// they are gone nothing of them is left: goroutines, descriptors, buffers, requests in flight.
func TestClientsThatMisbehave(t *testing.T) {
	flood := func(c *raw, n int) {
		for i := range n {
			c.nc.Write(request{command: cmdRead, cookie: uint64(i), length: diskSize}.bytes())
		}
	}
	for name, misbehave := range map[string]func(*raw){
		"stalls in a header":  func(c *raw) { c.nc.Write(request{command: cmdWrite, length: 5000}.bytes()[:20]) },
		"stalls in a payload": func(c *raw) { c.nc.Write(request{command: cmdWrite, length: 5000}.bytes(1, 2, 3)) },
		"stalls in a piece": func(c *raw) {
			c.nc.Write(request{command: cmdWrite, length: diskSize}.bytes(make([]byte, diskSize/3)...))
		},
		"reads nothing": func(c *raw) { flood(c, 300) },
		"floods": func(c *raw) {
			for range 2000 {
				c.nc.Write(request{command: cmdFlush}.bytes())
			}
		},
		"half-closes":  func(c *raw) { flood(c, 5); c.nc.CloseWrite() },
		"can't hear":   func(c *raw) { c.nc.CloseRead(); flood(c, 5) },
		"lies":         func(c *raw) { c.nc.Write(bytes.Repeat([]byte{0x25}, 5000)) },
		"says goodbye": func(c *raw) { flood(c, 5); c.nc.Write(request{command: cmdDisc}.bytes()) },
		"vanishes with 64 writes in flight": func(c *raw) {
			for i := range uint64(64) {
				c.nc.Write(request{command: cmdWrite, cookie: i, offset: i * 512, length: 512}.bytes(make([]byte, 512)...))
			}
			c.nc.Close()
		},
	} {
		for kind, waits := range map[string]bool{"": false, ", the device waits": true} {
			t.Run(name+kind, func(t *testing.T) {
				dev := &nbdtest.Hooked{Full: nbdtest.NewMemory(diskSize), Before: func(nbdtest.Op, int64, int64) error { return nil }}
				if !waits {
					dev.Nowait = func(int64, int64) error { return nil }
				}
				e := nbd.NewExport("vol", dev, nbd.Options{})
				h := serve(t, nbdtest.NewExports(e))
				other := h.enter(t, "vol")
				goroutines, files := runtime.NumGoroutine(), descriptors(t)
				var bad []*raw
				var wg sync.WaitGroup
				for range 3 {
					c := h.enter(t, "vol")
					bad = append(bad, c)
					wg.Go(func() { misbehave(c) })
				}
				for range 20 {
					other.lives()
				}
				for _, c := range bad {
					c.nc.Close()
				}
				wg.Wait()
				eventually(t, "the others are gone", func() bool { return e.Clients() == 1 })
				other.lives()
				eventually(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= goroutines })
				eventually(t, "descriptors are closed", func() bool { return descriptors(t) <= files })
				eventually(t, "nothing is in flight", func() bool { return e.Stats().InFlight == 0 })
				other.nc.Close()
				eventually(t, "no memory is kept", func() bool { return e.Kept() == 0 && e.Lent() == 0 })
			})
		}
	}
}

// TestAClientThatSendsBeforeItReads: it is no deadlock, as long as what it asks for fits its budget.
func TestAClientThatSendsBeforeItReads(t *testing.T) {
	e := nbd.NewExport("vol", nbdtest.NewMemory(diskSize), nbd.Options{})
	c := serve(t, nbdtest.NewExports(e)).enter(t, "vol")
	const reads, writes = 30, 30
	for i := range uint64(reads) {
		c.send(request{command: cmdRead, cookie: i, length: diskSize}.bytes())
	}
	for i := range uint64(writes) {
		c.send(request{command: cmdWrite, cookie: reads + i, length: diskSize}.bytes(make([]byte, diskSize)...))
	}
	for range reads + writes {
		cookie, errno := c.answered()
		if errno != ok {
			t.Fatal(errno)
		}
		if cookie < reads {
			c.read(diskSize)
		}
	}
}
