package nbd_test

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"

	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdtest"
)

func TestCacheReachesTheDevice(t *testing.T) {
	var seen notes
	h, _ := hooked(t, seen.take)
	c := h.enter(t, "vol")
	c.do(request{command: cmdCache, offset: 4096, length: 8192}, ok)
	c.do(request{command: cmdCache, offset: diskSize - 1, length: 2}, einval)
	if got := seen.taken(); got != "cache 4096 8192" {
		t.Error(got)
	}
}

// TestNBD22_CacheIsAHint: there are clients that send it unasked, so a device without it is no reason for an error.
func TestNBD22_CacheIsAHint(t *testing.T) {
	h := serve(t, nbdtest.NewExports(nbd.NewExport("vol", bare{nbdtest.NewMemory(diskSize)}, nbd.Options{})))
	if h.flags(t, "vol")&(1<<10) != 0 {
		t.Error("SEND_CACHE without a device that can")
	}
	h.enter(t, "vol").do(request{command: cmdCache, length: 512}, ok)
}

func TestNBD22_DFWhereRepliesAreStructured(t *testing.T) {
	h := one(t)
	if h.flags(t, "vol")&(1<<7) != 0 {
		t.Error("SEND_DF with simple replies")
	}
	for _, option := range []uint32{optStructured, optExtended} {
		c := h.connect(t, fixedFlags)
		c.want(option, nil, repAck)
		c.option(optGo, ask("vol"))
		if data := c.reply(optGo).data; data[11]&(1<<7) == 0 {
			t.Errorf("no SEND_DF after option %d", option)
		}
	}
}

// TestNBD23_FastZero: fast, or ENOTSUP at once with nothing changed; no other request is answered so.
func TestNBD23_FastZero(t *testing.T) {
	var seen notes
	var refuse atomic.Bool
	h, _ := hooked(t, func(op nbdtest.Op, off, n int64) error {
		seen.take(op, off, n)
		if refuse.Load() {
			return fmt.Errorf("no fast way: %w", syscall.ENOTSUP)
		}
		return nil
	})
	c := h.enter(t, "vol")
	c.do(request{command: cmdWrite, length: 100_000}, ok, pattern(100_000, 1)...)
	c.do(request{command: cmdZeroes, flags: flagFast, length: 8192}, ok)
	c.do(request{command: cmdZeroes, flags: flagFast | flagNoHole | flagFUA, offset: 8192, length: 4096}, ok)
	c.do(request{command: cmdZeroes, flags: flagFast, offset: 20_481, length: 4096}, enotsup)
	if got := seen.taken(); got != "write 0 100000, zero-fast 0 8192, zero-fast 8192 4096, sync 0 0, zero-fast 20481 4096" {
		t.Error(got)
	}
	want := pattern(100_000, 1)
	clear(want[:12_288])
	c.readBack(0, want)
	refuse.Store(true)
	c.do(request{command: cmdZeroes, length: 4096}, eio)
	c.do(request{command: cmdTrim, length: 4096}, eio)
}

func TestNBD23_NoFastZeroWhereThereIsNone(t *testing.T) {
	h := serve(t, nbdtest.NewExports(nbd.NewExport("vol", bare{nbdtest.NewMemory(diskSize)}, nbd.Options{})))
	if h.flags(t, "vol")&(1<<11) != 0 {
		t.Error("SEND_FAST_ZERO without a device that can")
	}
	h.enter(t, "vol").do(request{command: cmdZeroes, flags: flagFast, length: 4096}, einval)
}

// TestNBD16_FUAOnALongWrite: its pieces are written plain, and made durable together before the answer.
func TestNBD16_FUAOnALongWrite(t *testing.T) {
	for name, waits := range map[string]bool{"by the loop": false, "by workers": true} {
		t.Run(name, func(t *testing.T) {
			var seen notes
			dev := &nbdtest.Hooked{Full: nbdtest.NewMemory(diskSize), Before: seen.take}
			e := nbd.NewExport("vol", dev, nbd.Options{})
			if waits {
				e = nbd.NewExport("vol", waiting{dev, dev, dev}, nbd.Options{})
			}
			c := serve(t, nbdtest.NewExports(e)).enter(t, "vol")
			c.do(request{command: cmdWrite, flags: flagFUA, offset: 100, length: 500_000}, ok, pattern(500_000, 1)...)
			calls := seen.list()
			if n := len(calls); n < 3 || calls[n-1] != "sync 0 0" {
				t.Fatal(calls)
			}
			for _, call := range calls[:len(calls)-1] {
				var off, n int64
				if _, err := fmt.Sscanf(call, "write %d %d", &off, &n); err != nil || off != 100 && off%4096 != 0 {
					t.Errorf("%s: pieces begin at whole blocks (%v)", call, err)
				}
			}
			c.readBack(100, pattern(500_000, 1))
		})
	}
}

// TestAnErrorInALongWrite: the rest of the payload is read away, and the answer is one error.
func TestAnErrorInALongWrite(t *testing.T) {
	for name, waits := range map[string]bool{"by the loop": false, "by workers": true} {
		t.Run(name, func(t *testing.T) {
			dev := &nbdtest.Hooked{Full: nbdtest.NewMemory(diskSize), Before: func(op nbdtest.Op, off, _ int64) error {
				if op == nbdtest.Write && off > 200_000 {
					return enospc
				}
				return nil
			}}
			e := nbd.NewExport("vol", dev, nbd.Options{})
			if waits {
				e = nbd.NewExport("vol", waiting{dev, dev, dev}, nbd.Options{})
			}
			c := serve(t, nbdtest.NewExports(e)).enter(t, "vol")
			for _, flags := range []uint16{0, flagFUA} {
				c.do(request{command: cmdWrite, flags: flags, length: diskSize}, enospc, pattern(diskSize, 2)...)
				c.lives()
			}
		})
	}
}

// TestSlowWritesAreForWorkers: a device whose writes take long does not keep the loop from its other requests.
func TestSlowWritesAreForWorkers(t *testing.T) {
	release := make(chan struct{})
	slow := make(chan struct{}, 100)
	h, e := hooked(t, func(op nbdtest.Op, off, _ int64) error {
		if op == nbdtest.Write && off > 0 {
			slow <- struct{}{}
			<-release
		}
		return nil
	})
	e.WritesAreSlow()
	c := h.enter(t, "vol")
	for i := range uint64(5) {
		c.send(request{command: cmdWrite, cookie: i, offset: 1 + i, length: 1}.bytes(1))
	}
	<-slow
	c.do(request{command: cmdFlush, cookie: 9}, ok)
	close(release)
	for range 5 {
		if _, errno := c.answered(); errno != ok {
			t.Error(errno)
		}
	}
}
