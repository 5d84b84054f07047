package nbdtest

import (
	"syscall"

	"nbdcrypt/nbd"
)

// Op names a device call.
type Op string

// The calls of a device.
const (
	Read     Op = "read"
	Write    Op = "write"
	WriteFUA Op = "write-fua"
	Trim     Op = "trim"
	Zero     Op = "zero"
	ZeroKeep Op = "zero-no-hole"
	Sync     Op = "sync"
	SizeOf   Op = "size"
	ExtentOf Op = "extent"
	Cache    Op = "cache"
	ZeroFast Op = "zero-fast"
)

// Full is a device with every ability.
type Full interface {
	nbd.Device
	nbd.FUAWriter
	nbd.Trimmer
	nbd.Zeroer
	nbd.NowaitReader
	nbd.Extenter
	nbd.Cacher
	nbd.FastZeroer
}

// Hooked is a device in front of another: Before is called with each call and its range. An error from it is
// the answer; that is how a test injects faults. It may also wait, to hold requests in flight, or take notes.
type Hooked struct {
	Full
	Before func(op Op, off, n int64) error
	// Nowait, where it is set, is asked in place of Before by reads that must not wait. Where it is not, all of them
	// would wait.
	Nowait func(off, n int64) error
}

// ReadAt reads unless Before refuses.
func (h *Hooked) ReadAt(p []byte, off int64) (int, error) {
	if err := h.Before(Read, off, int64(len(p))); err != nil {
		return 0, err
	}
	return h.Full.ReadAt(p, off)
}

// ReadAtNowait reads unless Nowait is not there or refuses.
func (h *Hooked) ReadAtNowait(p []byte, off int64) (int, error) {
	if h.Nowait == nil {
		return 0, syscall.EAGAIN
	}
	if err := h.Nowait(off, int64(len(p))); err != nil {
		return 0, err
	}
	return h.Full.ReadAtNowait(p, off)
}

// WriteAt writes unless Before refuses.
func (h *Hooked) WriteAt(p []byte, off int64) (int, error) {
	if err := h.Before(Write, off, int64(len(p))); err != nil {
		return 0, err
	}
	return h.Full.WriteAt(p, off)
}

// WriteAtFUA writes unless Before refuses.
func (h *Hooked) WriteAtFUA(p []byte, off int64) (int, error) {
	if err := h.Before(WriteFUA, off, int64(len(p))); err != nil {
		return 0, err
	}
	return h.Full.WriteAtFUA(p, off)
}

// TrimAt trims unless Before refuses.
func (h *Hooked) TrimAt(off, n int64) error {
	if err := h.Before(Trim, off, n); err != nil {
		return err
	}
	return h.Full.TrimAt(off, n)
}

// ZeroAt makes zeros unless Before refuses.
func (h *Hooked) ZeroAt(off, n int64, noHole bool) error {
	op := Zero
	if noHole {
		op = ZeroKeep
	}
	if err := h.Before(op, off, n); err != nil {
		return err
	}
	return h.Full.ZeroAt(off, n, noHole)
}

// ZeroAtFast makes zeros unless Before refuses.
func (h *Hooked) ZeroAtFast(off, n int64, noHole bool) error {
	if err := h.Before(ZeroFast, off, n); err != nil {
		return err
	}
	return h.Full.ZeroAtFast(off, n, noHole)
}

// Extent tells what is a hole unless Before refuses.
func (h *Hooked) Extent(off, n int64) (length int64, hole, zero bool, err error) {
	if err := h.Before(ExtentOf, off, n); err != nil {
		return 0, false, false, err
	}
	return h.Full.Extent(off, n)
}

// CacheAt reads ahead unless Before refuses.
func (h *Hooked) CacheAt(off, n int64) error {
	if err := h.Before(Cache, off, n); err != nil {
		return err
	}
	return h.Full.CacheAt(off, n)
}

// Sync syncs unless Before refuses.
func (h *Hooked) Sync() error {
	if err := h.Before(Sync, 0, 0); err != nil {
		return err
	}
	return h.Full.Sync()
}

// Size tells the size unless Before refuses.
func (h *Hooked) Size() (int64, error) {
	if err := h.Before(SizeOf, 0, 0); err != nil {
		return 0, err
	}
	return h.Full.Size()
}
