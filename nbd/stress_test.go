package nbd_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdtest"
)

const (
	stressConns  = 8
	stressFlight = 64
	stressBlock  = 16 << 10
	stressRounds = 6
)

// TestNBD13_ManyClientsAtAnyByte: 8 connections with 64 requests of 16 KiB in flight each, at random byte offsets.
// Every connection owns a stretch of the device between those of others, so that neighbours meet inside sectors.
func TestNBD13_ManyClientsAtAnyByte(t *testing.T) {
	t.Run("by the loop", func(t *testing.T) { manyClients(t, func(dev *nbdtest.Memory) nbd.Device { return dev }) })
	t.Run("by workers", func(t *testing.T) {
		manyClients(t, func(dev *nbdtest.Memory) nbd.Device { return waiting{dev, dev, dev} })
	})
	t.Run("by both", func(t *testing.T) {
		manyClients(t, func(dev *nbdtest.Memory) nbd.Device {
			return &nbdtest.Hooked{Full: dev, Before: func(nbdtest.Op, int64, int64) error { return nil }, Nowait: func(off, _ int64) error {
				if off%3 == 0 {
					return syscall.EAGAIN
				}
				return nil
			}}
		})
	})
}

func manyClients(t *testing.T, over func(*nbdtest.Memory) nbd.Device) {
	const slot = stressBlock + 37 // never a multiple of a sector
	size := stressConns*stressFlight*slot + 1000
	dev := nbdtest.NewMemory(size)
	h := serve(t, nbdtest.NewExports(nbd.NewExport("vol", over(dev), nbd.Options{})))
	want := make([]byte, size)
	var wg sync.WaitGroup
	for n := range stressConns {
		c := h.enter(t, "vol")
		wg.Go(func() { stress(c, want, n, slot) })
	}
	wg.Wait()
	got := make([]byte, size)
	if _, err := dev.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Fatal("the device does not hold what was written", err)
	}
	h.enter(t, "vol").readBack(0, want)
}

// stress writes its slots, all in flight at once, in random order and shifted by random bytes within a slot, then
// reads them back the same way; slots of different connections alternate.
func stress(c *raw, want []byte, n, slot int) {
	rng := rand.New(rand.NewPCG(uint64(n), 13))
	for round := range stressRounds {
		var offsets [stressFlight]int
		for i := range offsets {
			offsets[i] = 500 + (i*stressConns+n)*slot + rng.IntN(slot-stressBlock)
			copy(want[offsets[i]:], pattern(stressBlock, rng.Uint64()))
		}
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for _, i := range rng.Perm(stressFlight) {
				r := request{command: cmdWrite, cookie: uint64(i), offset: uint64(offsets[i]), length: stressBlock}
				c.nc.Write(r.bytes(want[offsets[i] : offsets[i]+stressBlock]...))
			}
		}()
		answers(c, func(int) {})
		<-sent
		for i, off := range offsets {
			c.nc.Write(request{command: cmdRead, cookie: uint64(i), offset: uint64(off), length: stressBlock}.bytes())
		}
		got := make([]byte, stressBlock)
		answers(c, func(i int) {
			readInto(c, got)
			if !bytes.Equal(got, want[offsets[i]:offsets[i]+stressBlock]) {
				c.t.Errorf("connection %d, round %d: block %d differs", n, round, i)
			}
		})
	}
}

// answers reads one reply for each slot; a cookie that comes twice, or an error, is one failure more.
func answers(c *raw, each func(i int)) {
	var seen [stressFlight]bool
	head := make([]byte, 16)
	for range stressFlight {
		readInto(c, head)
		i := binary.BigEndian.Uint64(head[8:])
		if binary.BigEndian.Uint64(head) != 0x67446698<<32 || i >= stressFlight || seen[i] {
			c.t.Errorf("reply %x", head)
			return
		}
		seen[i] = true
		each(int(i))
	}
}

// readInto is read for goroutines that may not end a test.
func readInto(c *raw, b []byte) {
	for len(b) > 0 {
		n, err := c.nc.Read(b)
		if err != nil {
			c.t.Error(err)
			return
		}
		b = b[n:]
	}
}
