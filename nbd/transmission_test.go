package nbd_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"

	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdtest"
)

// hooked serves a device whose calls pass through before.
func hooked(t testing.TB, before func(op nbdtest.Op, off, n int64) error) (*house, *nbd.Export) {
	t.Helper()
	dev := &nbdtest.Hooked{Full: nbdtest.NewMemory(diskSize), Before: before}
	e := nbd.NewExport("vol", dev, nbd.Options{})
	return serve(t, nbdtest.NewExports(e)), e
}

// notes takes down the calls that reach a device, sizes apart.
type notes struct {
	mu    sync.Mutex
	calls []string
}

func (n *notes) take(op nbdtest.Op, off, length int64) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if op != nbdtest.SizeOf {
		n.calls = append(n.calls, fmt.Sprint(op, " ", off, " ", length))
	}
	return nil
}

// taken returns the notes and begins a new page.
func (n *notes) taken() string { return strings.Join(n.list(), ", ") }

// list is the same, call by call.
func (n *notes) list() (calls []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	calls, n.calls = n.calls, nil
	return calls
}

func TestNBD12_PayloadLimits(t *testing.T) {
	const large = 64 << 20
	e := nbd.NewExport("vol", nbdtest.NewMemory(large+1), nbd.Options{})
	h := serve(t, nbdtest.NewExports(e))
	c := h.enter(t, "vol")
	data := pattern(large, 3)
	c.do(request{command: cmdWrite, offset: 1, length: large}, ok, data...)
	c.readBack(1, data)
	c.do(request{command: cmdRead, length: large + 1}, einval)
	c.do(request{command: cmdRead, length: 1<<32 - 1}, einval)
	c.do(request{command: cmdWrite, length: large + 1}, einval, make([]byte, large+1)...)
	c.do(request{command: cmdWrite, length: 2 * large}, einval, make([]byte, 2*large)...)
	c.lives()
	c.send(request{command: cmdWrite, length: 2*large + 1}.bytes())
	c.closed()
}

func TestNBD13_UnalignedIsServed(t *testing.T) {
	c := one(t).enter(t, "vol")
	for _, r := range []struct {
		off uint64
		n   int
	}{{0, 1}, {1, 511}, {511, 2}, {4095, 4098}, {diskSize - 1, 1}, {diskSize - 777, 777}} {
		data := pattern(r.n, r.off)
		c.do(request{command: cmdWrite, offset: r.off, length: uint32(r.n)}, ok, data...)
		c.readBack(r.off, data)
	}
}

func TestNBD14_RangesDoNotOverflow(t *testing.T) {
	c := one(t).enter(t, "vol")
	for _, off := range []uint64{diskSize - 511, diskSize + 1, 1<<63 - 1, 1 << 63, 1<<64 - 512, 1<<64 - 1} {
		for command, want := range map[uint16]syscall.Errno{cmdRead: einval, cmdTrim: einval, cmdZeroes: enospc} {
			c.do(request{command: command, offset: off, length: 512}, want)
			c.do(request{command: command, offset: off, length: 1<<32 - 1}, want2(command))
		}
		c.do(request{command: cmdWrite, offset: off, length: 512}, enospc, make([]byte, 512)...)
	}
	for _, command := range []uint16{cmdTrim, cmdZeroes, cmdCache, cmdStatus} {
		c.do(request{command: command, length: 1<<32 - 1}, want2(command))
	}
	for _, command := range []uint16{cmdRead, cmdWrite, cmdTrim, cmdZeroes, cmdFlush} {
		c.do(request{command: command}, ok)
	}
	c.do(request{command: cmdRead, offset: diskSize}, ok)
	c.do(request{command: cmdRead, offset: diskSize + 1}, einval)
	c.lives()
}

// want2 is the answer to a range that is too long for the disk.
func want2(command uint16) syscall.Errno {
	if command == cmdZeroes {
		return enospc
	}
	return einval
}

func TestNBD14_ALargeZeroIsServed(t *testing.T) {
	var seen notes
	dev := &nbdtest.Hooked{Full: endless{nbdtest.NewMemory(0)}, Before: seen.take}
	c := serve(t, nbdtest.NewExports(nbd.NewExport("vol", dev, nbd.Options{}))).enter(t, "vol")
	c.do(request{command: cmdZeroes, offset: 1 << 40, length: 1<<32 - 1}, ok)
	c.do(request{command: cmdTrim, offset: 1 << 41, length: 1<<32 - 1}, ok)
	if got := seen.taken(); got != "zero 1099511627776 4294967295, trim 2199023255552 4294967295" {
		t.Error(got)
	}
}

// endless is a device of 8 EiB less one byte that keeps nothing.
type endless struct{ *nbdtest.Memory }

func (endless) Size() (int64, error)              { return 1<<63 - 1, nil }
func (endless) ZeroAt(off, n int64, _ bool) error { return nil }
func (endless) TrimAt(off, n int64) error         { return nil }
func (endless) CacheAt(off, n int64) error        { return nil }

func TestNBD15_FlushIsTheDevicesSync(t *testing.T) {
	var seen notes
	h, _ := hooked(t, seen.take)
	c, other := h.enter(t, "vol"), h.enter(t, "vol")
	c.do(request{command: cmdWrite, length: 3}, ok, 1, 2, 3)
	other.do(request{command: cmdFlush}, ok)
	if got := seen.taken(); got != "write 0 3, sync 0 0" {
		t.Error(got)
	}
}

func TestNBD15_AFailedFlushIsTold(t *testing.T) {
	h, _ := hooked(t, func(op nbdtest.Op, _, _ int64) error {
		if op == nbdtest.Sync {
			return fmt.Errorf("the disk is gone: %w", eio)
		}
		return nil
	})
	c := h.enter(t, "vol")
	c.do(request{command: cmdFlush}, eio)
	c.do(request{command: cmdTrim, flags: flagFUA, length: 512}, eio)
	c.lives()
}

func TestNBD16_FUA(t *testing.T) {
	var seen notes
	h, _ := hooked(t, seen.take)
	c := h.enter(t, "vol")
	for _, one := range []struct {
		r    request
		want string
	}{
		{request{command: cmdWrite, length: 1, flags: flagFUA}, "write-fua 0 1"},
		{request{command: cmdTrim, length: 512, flags: flagFUA}, "trim 0 512, sync 0 0"},
		{request{command: cmdZeroes, length: 512, flags: flagFUA}, "zero 0 512, sync 0 0"},
		{request{command: cmdZeroes, length: 512, flags: flagFUA | flagNoHole}, "zero-no-hole 0 512, sync 0 0"},
		{request{command: cmdRead, length: 1, flags: flagFUA}, "read 0 1"},
		{request{command: cmdFlush, flags: flagFUA}, "sync 0 0"},
	} {
		c.do(one.r, ok, make([]byte, one.r.length)[:payload(one.r)]...)
		if got := seen.taken(); got != one.want {
			t.Errorf("command %d: %s, want %s", one.r.command, got, one.want)
		}
	}
}

func payload(r request) int {
	if r.command == cmdWrite {
		return int(r.length)
	}
	return 0
}

// bare hides every ability of a device.
type bare struct{ nbd.Device }

func TestNBD16_FUAAndZerosOnABareDevice(t *testing.T) {
	var seen notes
	dev := nbdtest.NewMemory(diskSize)
	dev.WriteAt(pattern(diskSize, 1), 0)
	e := nbd.NewExport("vol", bare{&nbdtest.Hooked{Full: dev, Before: seen.take}}, nbd.Options{})
	h := serve(t, nbdtest.NewExports(e))
	c := h.enter(t, "vol")
	c.do(request{command: cmdWrite, length: 1, flags: flagFUA}, ok, 1)
	if got := seen.taken(); got != "write 0 1, sync 0 0" {
		t.Error(got)
	}
	c.do(request{command: cmdZeroes, offset: 1, length: 600_000, flags: flagFUA | flagNoHole}, ok)
	if got := seen.taken(); got != "write 1 262144, write 262145 262144, write 524289 75712, sync 0 0" {
		t.Error(got)
	}
	want := pattern(diskSize, 1)
	want[0] = 1
	clear(want[1:600_001])
	c.readBack(0, want)
	c.do(request{command: cmdTrim, length: 512}, einval)
	if flags := h.flags(t, "vol"); flags != flagsRW&^(1<<5|1<<10|1<<11) {
		t.Errorf("flags %#x", flags)
	}
}

func TestNBD17_RepliesComeInAnyOrder(t *testing.T) {
	release := make(chan struct{})
	h, _ := hooked(t, func(op nbdtest.Op, off, _ int64) error {
		if op == nbdtest.Read && off == 0 {
			<-release
		}
		return nil
	})
	c := h.enter(t, "vol")
	c.send(request{command: cmdRead, cookie: 1, length: 512}.bytes())
	c.do(request{command: cmdRead, cookie: 1<<64 - 1, offset: 512, length: 512}, ok)
	c.do(request{command: cmdFlush, cookie: 1 << 63}, ok)
	c.do(request{command: 77, cookie: 2}, einval)
	close(release)
	c.expect(1, ok)
	c.read(512)
	// A cookie is the client's: two requests may have the same.
	c.send(append(request{command: cmdFlush, cookie: 5}.bytes(), request{command: cmdFlush, cookie: 5}.bytes()...))
	c.expect(5, ok)
	c.expect(5, ok)
}

func TestNBD17_ManyInFlightOnOneConnection(t *testing.T) {
	var mu sync.Mutex
	inside := 0
	full := make(chan struct{})
	h, _ := hooked(t, func(op nbdtest.Op, _, _ int64) error {
		if op != nbdtest.Read {
			return nil
		}
		mu.Lock()
		inside++
		if inside == nbd.MaxWorkers {
			close(full) // until then nobody is let through
		}
		mu.Unlock()
		<-full
		return nil
	})
	c := h.enter(t, "vol")
	for i := range uint64(4 * nbd.MaxWorkers) {
		c.send(request{command: cmdRead, cookie: i, offset: i, length: 9}.bytes())
	}
	seen := map[uint64]bool{}
	for range 4 * nbd.MaxWorkers {
		cookie, errno := c.answered()
		if errno != ok || seen[cookie] {
			t.Fatalf("cookie %d: %v", cookie, errno)
		}
		seen[cookie] = true
		c.read(9)
	}
}

func TestNBD18_AReadThatFailsSendsNoData(t *testing.T) {
	answers := map[int64]error{0: enomem, 512: io.ErrUnexpectedEOF}
	h, _ := hooked(t, func(op nbdtest.Op, off, _ int64) error {
		if op == nbdtest.Read {
			return answers[off]
		}
		return nil
	})
	c := h.enter(t, "vol")
	c.do(request{command: cmdRead, offset: 0, length: 4096}, enomem)
	c.do(request{command: cmdRead, offset: 512, length: 1 << 16}, eio)
	c.do(request{command: cmdRead, offset: 1024, length: 16}, ok)
}

// stingy reads and writes less than it is asked, without an error.
type stingy struct{ *nbdtest.Memory }

func (s stingy) ReadAt(p []byte, off int64) (int, error)       { return s.Memory.ReadAt(p[:len(p)/2], off) }
func (s stingy) ReadAtNowait(p []byte, off int64) (int, error) { return s.ReadAt(p, off) }
func (s stingy) WriteAt(p []byte, off int64) (int, error)      { return s.Memory.WriteAt(p[:len(p)/2], off) }

func TestNBD18_AShortReadIsAnError(t *testing.T) {
	e := nbd.NewExport("vol", stingy{nbdtest.NewMemory(diskSize)}, nbd.Options{})
	c := serve(t, nbdtest.NewExports(e)).enter(t, "vol")
	c.do(request{command: cmdRead, length: 16}, eio)
	c.do(request{command: cmdWrite, length: 2}, eio, 1, 2)
}

func TestNBD23_ZeroedAndTrimmedReadAsZeros(t *testing.T) {
	var seen notes
	h, _ := hooked(t, seen.take)
	c := h.enter(t, "vol")
	want := pattern(100_000, 9)
	c.do(request{command: cmdWrite, length: 100_000}, ok, want...)
	seen.taken()
	c.do(request{command: cmdZeroes, offset: 13, length: 10_000}, ok)
	c.do(request{command: cmdZeroes, offset: 20_013, length: 10_000, flags: flagNoHole}, ok)
	c.do(request{command: cmdTrim, offset: 40_013, length: 10_000}, ok)
	if got := seen.taken(); got != "zero 13 10000, zero-no-hole 20013 10000, trim 40013 10000" {
		t.Error(got)
	}
	for _, off := range []int{13, 20_013, 40_013} {
		clear(want[off : off+10_000])
	}
	c.readBack(0, want)
}

func TestNBD24_DiscFinishesWhatIsOutstanding(t *testing.T) {
	release := make(chan struct{})
	dev := nbdtest.NewMemory(diskSize)
	hook := &nbdtest.Hooked{Full: dev, Before: func(op nbdtest.Op, _, _ int64) error {
		if op == nbdtest.Write {
			<-release
		}
		return nil
	}}
	c := serve(t, nbdtest.NewExports(nbd.NewExport("vol", hook, nbd.Options{}))).enter(t, "vol")
	c.send(request{command: cmdWrite, cookie: 1, length: 3}.bytes(7, 8, 9))
	c.send(request{command: cmdDisc, cookie: 2}.bytes())
	c.nc.Write(request{command: cmdWrite, cookie: 3, length: 3}.bytes(1, 1, 1)) // ignored
	close(release)
	c.expect(1, ok)
	c.closed()
	got := make([]byte, 3)
	if dev.ReadAt(got, 0); !bytes.Equal(got, []byte{7, 8, 9}) {
		t.Errorf("the device holds %v", got)
	}
}

func TestSizeIsAskedEachTime(t *testing.T) {
	dev := nbdtest.NewMemory(4096)
	c := serve(t, nbdtest.NewExports(nbd.NewExport("vol", dev, nbd.Options{}))).enter(t, "vol")
	c.do(request{command: cmdWrite, offset: 4096, length: 1}, enospc, 1)
	dev.Grow(8192)
	c.do(request{command: cmdWrite, offset: 4096, length: 1}, ok, 1)
}

func TestBlockSizesFitTheDevice(t *testing.T) {
	for size, want := range map[int][2]byte{8192: {16, 0}, 4096 + 512: {2, 0}, 1000: {0, 8}, 1: {0, 1}} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			dev := sized{nbdtest.NewMemory(size)}
			c := serve(t, nbdtest.NewExports(nbd.NewExport("vol", dev, nbd.Options{}))).connect(t, fixedFlags)
			var infos []optReply
			c.option(optInfo, ask("vol", 3))
			c.replies(optInfo, &infos)
			if got := infos[1].data[2:6]; got[2] != want[0] || got[3] != want[1] {
				t.Errorf("a device of %d bytes: minimum %v", size, got)
			}
		})
	}
}

// sized is a device of 4096-byte sectors.
type sized struct{ *nbdtest.Memory }

func (sized) BlockSizes() (uint32, uint32) { return 4096, 4096 }
