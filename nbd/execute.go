package nbd

import (
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"syscall"

	"nbdcrypt/nbd/internal/wire"
)

// zeroChunk is how much of a range is zeroed in one call where the device can only write.
const zeroChunk = 256 << 10

// maxStep is the longest range that one call of the device is for. Longer ones, which extended headers allow, are several:
// each enters the gate anew.
const maxStep = 1 << 32

// abilities is a device with what it can do beyond the minimum, found out once.
type abilities struct {
	Device
	fua      FUAWriter
	trimmer  Trimmer
	zeroer   Zeroer
	fast     FastZeroer
	nowait   NowaitReader
	extenter Extenter
	cacher   Cacher
	sizer    BlockSizer
}

func abilitiesOf(dev Device) abilities {
	a := abilities{Device: dev}
	a.fua, _ = dev.(FUAWriter)
	a.trimmer, _ = dev.(Trimmer)
	a.zeroer, _ = dev.(Zeroer)
	a.fast, _ = dev.(FastZeroer)
	a.nowait, _ = dev.(NowaitReader)
	a.extenter, _ = dev.(Extenter)
	a.cacher, _ = dev.(Cacher)
	a.sizer, _ = dev.(BlockSizer)
	return a
}

// execute runs a checked request on the device, or a piece of one.
func (e *Export) execute(r wire.Request, data []byte) error {
	for r.Length > maxStep && r.Flags&wire.CmdFlagFastZero == 0 {
		step := r
		step.Flags &^= wire.CmdFlagFUA // durable with the last step
		step.Length = maxStep
		if err := e.call(step, nil); err != nil {
			return err
		}
		r.Offset += maxStep
		r.Length -= maxStep
	}
	if !isSync(r) {
		return e.call(r, data)
	}
	began := clock()
	err := e.call(r, data)
	e.pacing.judgeSync(clock() - began)
	return err
}

// call is one call of the device. With readNow and extent it is the only way there, and the gate is held for exactly
// that long.
func (e *Export) call(r wire.Request, data []byte) (err error) {
	if !e.gate.enter() {
		return ErrShutdown
	}
	defer e.gate.leave()
	defer rescue(&err)
	off, n := int64(r.Offset), int64(r.Length)
	fua := r.Flags&wire.CmdFlagFUA != 0
	switch r.Type {
	case wire.CmdRead:
		return e.device.readFull(data, off)
	case wire.CmdWrite:
		return e.device.write(data, off, fua)
	case wire.CmdFlush:
		return e.device.Sync()
	case wire.CmdTrim:
		return e.device.thenSync(e.device.trimmer.TrimAt(off, n), fua)
	case wire.CmdCache:
		return e.device.cache(off, n)
	case wire.CmdWriteZeroes:
		return e.device.thenSync(e.device.zero(off, n, r.Flags), fua)
	}
	return syscall.EINVAL
}

// readNow reads what the device can tell without waiting for storage; errWouldWait tells that it can't.
func (e *Export) readNow(p []byte, off int64) (err error) {
	if !e.gate.enter() {
		return ErrShutdown
	}
	defer e.gate.leave()
	defer rescue(&err)
	n, err := e.device.nowait.ReadAtNowait(p, off)
	if n == len(p) && (err == nil || err == io.EOF) {
		return nil
	}
	if errors.Is(err, syscall.EAGAIN) {
		return errWouldWait
	}
	return wasRead(n, len(p), off, err)
}

// errWouldWait is for a worker.
var errWouldWait = errors.New("nbd: the read would wait for storage")

// extent tells about the longest run of one kind that begins at off and has at most n bytes.
func (e *Export) extent(off, n uint64) (length uint64, hole, zero bool, err error) {
	if e.device.extenter == nil {
		return n, false, false, nil
	}
	if !e.gate.enter() {
		return 0, false, false, ErrShutdown
	}
	defer e.gate.leave()
	defer rescue(&err)
	run, hole, zero, err := e.device.extenter.Extent(int64(off), int64(n))
	if err == nil && (run <= 0 || uint64(run) > n) {
		err = fmt.Errorf("nbd: the device knows %d bytes of %d at %d: %w", run, n, off, syscall.EIO)
	}
	return uint64(run), hole, zero, err
}

// readFull reads all of p.
func (a *abilities) readFull(p []byte, off int64) error {
	n, err := a.ReadAt(p, off)
	return wasRead(n, len(p), off, err)
}

// wasRead judges a read: a device's EOF at its very end is no error, a short read is one.
func wasRead(n, want int, off int64, err error) error {
	if n == want && (err == nil || errors.Is(err, io.EOF)) {
		return nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("nbd: read %d bytes at %d: %w", want, off, err)
}

func (a *abilities) write(p []byte, off int64, fua bool) error {
	if fua && a.fua != nil {
		n, err := a.fua.WriteAtFUA(p, off)
		return wrote(n, len(p), off, err)
	}
	n, err := a.WriteAt(p, off)
	return a.thenSync(wrote(n, len(p), off, err), fua)
}

func wrote(n, want int, off int64, err error) error {
	if err == nil && n < want {
		err = io.ErrShortWrite
	}
	if err != nil {
		return fmt.Errorf("nbd: write %d bytes at %d: %w", want, off, err)
	}
	return nil
}

// zero makes a range read as zeros. Writing them keeps the space as well, so it serves both kinds of request; only one that
// has to be fast is not for a device without fast zeros (check).
func (a *abilities) zero(off, n int64, flags uint16) error {
	noHole := flags&wire.CmdFlagNoHole != 0
	if flags&wire.CmdFlagFastZero != 0 {
		return a.fast.ZeroAtFast(off, n, noHole)
	}
	if a.zeroer != nil {
		return a.zeroer.ZeroAt(off, n, noHole)
	}
	zeros := make([]byte, min(n, zeroChunk))
	for end := off + n; off < end; off += int64(len(zeros)) {
		zeros = zeros[:min(int64(len(zeros)), end-off)]
		if err := a.write(zeros, off, false); err != nil {
			return err
		}
	}
	return nil
}

// cache tells the device what will be read soon. It is a hint: one that has no use for it is no error.
func (a *abilities) cache(off, n int64) error {
	if a.cacher == nil {
		return nil
	}
	return a.cacher.CacheAt(off, n)
}

// thenSync makes a change durable where FUA asks for it and the device has no better way.
func (a *abilities) thenSync(err error, fua bool) error {
	if err != nil || !fua {
		return err
	}
	return a.Sync()
}

// rescue turns a panic below the server into an error that its client sees as EIO: one bad request does not end
// the daemon. The words of the panic stay out of it, for they may hold data; the stack tells where it was.
func rescue(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("nbd: caught a panic (%T): %s", p, debug.Stack())
	}
}
