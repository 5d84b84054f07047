package nbd_test

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"syscall"
	"testing"

	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdtest"
)

func TestNBD19_ErrorsOfTheDevice(t *testing.T) {
	var answer atomic.Value
	h, _ := hooked(t, func(op nbdtest.Op, _, _ int64) error {
		if op == nbdtest.Sync {
			return answer.Load().(error)
		}
		return nil
	})
	c := h.enter(t, "vol")
	for err, want := range map[error]syscall.Errno{
		syscall.EPERM: eperm, syscall.EIO: eio, syscall.ENOMEM: enomem, syscall.EINVAL: einval, syscall.ENOSPC: enospc,
		syscall.EDQUOT: enospc, syscall.EFBIG: enospc, syscall.ESHUTDOWN: eshutdown, syscall.EACCES: eperm, syscall.EROFS: eperm,
		syscall.ENOTSUP: eio, syscall.EOVERFLOW: eio, syscall.EBADF: eio, errors.New("odd"): eio, io.EOF: eio,
	} {
		answer.Store(fmt.Errorf("device: %w", err))
		c.do(request{command: cmdFlush}, want)
	}
	c.lives()
}

func TestNBD19_ErrorsOfTheClient(t *testing.T) {
	c := one(t).enter(t, "vol")
	for _, r := range []request{
		{command: cmdRead, flags: flagNoHole}, {command: cmdWrite, flags: flagNoHole}, {command: cmdTrim, flags: flagNoHole},
		{command: cmdFlush, flags: flagNoHole}, {command: cmdRead, flags: flagDF},
		{command: cmdWrite, flags: flagPayload}, {command: cmdTrim, flags: flagReqOne}, {command: cmdRead, flags: 1 << 15},
		{command: cmdFlush, length: 1}, {command: cmdFlush, offset: 1},
		{command: cmdCache, flags: flagNoHole}, {command: cmdCache, flags: flagFast}, {command: cmdStatus}, {command: cmdStatus, length: 512}, {command: 8}, {command: 1<<16 - 1},
	} {
		c.do(r, einval)
	}
	c.do(request{command: cmdWrite, flags: 1 << 9, length: 700}, einval, pattern(700, 1)...)
	c.lives()
}

func TestNBD19_ReadOnly(t *testing.T) {
	e := nbd.NewExport("vol", nbdtest.NewMemory(diskSize), nbd.Options{ReadOnly: true})
	h := serve(t, nbdtest.NewExports(e))
	c := h.enter(t, "vol")
	c.do(request{command: cmdWrite, length: 700}, eperm, pattern(700, 1)...)
	c.do(request{command: cmdTrim, length: 700}, eperm)
	c.do(request{command: cmdZeroes, length: 700}, eperm)
	c.do(request{command: cmdFlush}, ok)
	c.readBack(0, make([]byte, diskSize))
	if flags := h.flags(t, "vol"); flags != 1<<0|1<<1|1<<2|1<<3|1<<8|1<<10 {
		t.Errorf("flags %#x", flags)
	}
}

func TestNBD19_APanicIsAnError(t *testing.T) {
	h, e := hooked(t, func(op nbdtest.Op, _, _ int64) error {
		if op == nbdtest.Write {
			panic("a defect")
		}
		return nil
	})
	c := h.enter(t, "vol")
	c.do(request{command: cmdWrite, length: 1}, eio, 1)
	c.lives()
	if err := e.Drain(t.Context()); err != nil {
		t.Error("the panic holds the export:", err)
	}
}

func TestNBD20_AnUnknownCommandHasNoPayload(t *testing.T) {
	c := one(t).enter(t, "vol")
	c.do(request{command: 200, length: 4096}, einval)
	c.do(request{command: cmdStatus, length: 4096}, einval)
	c.lives()
}

func TestNBD21_WrongMagicIsTheEnd(t *testing.T) {
	c := one(t).enter(t, "vol")
	b := request{command: cmdFlush}.bytes()
	b[0]++
	c.send(b)
	c.closed()
}

func TestNBD22_Flags(t *testing.T) {
	if flags := one(t).flags(t, "vol"); flags != flagsRW {
		t.Errorf("flags %#x", flags)
	}
}

// flags asks an export's transmission flags.
func (h *house) flags(t testing.TB, name string) uint16 {
	t.Helper()
	c := h.connect(t, fixedFlags)
	c.option(optGo, ask(name))
	data := c.reply(optGo).data
	return uint16(data[10])<<8 | uint16(data[11])
}
