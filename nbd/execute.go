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

// abilities is a device with what it can do beyond the minimum, found out once.
type abilities struct {
	Device
	fua     FUAWriter
	trimmer Trimmer
	zeroer  Zeroer
	sizer   BlockSizer
}

func abilitiesOf(dev Device) abilities {
	a := abilities{Device: dev}
	a.fua, _ = dev.(FUAWriter)
	a.trimmer, _ = dev.(Trimmer)
	a.zeroer, _ = dev.(Zeroer)
	a.sizer, _ = dev.(BlockSizer)
	return a
}

// execute runs a checked request on the device. It is the only way from a request to the device, and the gate is
// held for exactly that long.
func (e *Export) execute(r wire.Request, data []byte) (err error) {
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
	case wire.CmdWriteZeroes:
		return e.device.thenSync(e.device.zero(off, n, r.Flags&wire.CmdFlagNoHole != 0), fua)
	}
	return syscall.EINVAL
}

// readFull reads all of p: a device's EOF at its very end is no error, a short read is one.
func (a *abilities) readFull(p []byte, off int64) error {
	n, err := a.ReadAt(p, off)
	if n == len(p) && (err == nil || errors.Is(err, io.EOF)) {
		return nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("nbd: read %d bytes at %d: %w", len(p), off, err)
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

// zero makes a range read as zeros. Writing them keeps the space as well, so it serves both kinds of request.
func (a *abilities) zero(off, n int64, noHole bool) error {
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
