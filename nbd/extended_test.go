package nbd_test

import (
	"testing"

	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdtest"
)

// extended enters the only export of a house with extended headers.
func (h *house) extended(t *testing.T) *chunky {
	t.Helper()
	c := h.connect(t, fixedFlags)
	c.want(optExtended, nil, repAck)
	c.contexts(optSetMeta, askMeta("vol", "base:allocation"))
	c.want(optGo, ask("vol"), repAck)
	return &chunky{c, true}
}

// long sends a request with a 64-bit length and a payload, which is what the flag says it has.
func (c *chunky) long(r request, length uint64, payload ...byte) []chunk {
	c.t.Helper()
	c.send(r.bytes64(length, payload...))
	return c.answer(r)
}

// TestNBD28_EveryAnswerIsAChunk: the client refuses simple replies by itself.
func TestNBD28_EveryAnswerIsAChunk(t *testing.T) {
	c := one(t).extended(t)
	data := pattern(300_000, 4)
	c.must(request{command: cmdWrite, offset: 77, length: uint32(len(data))}, ok, data...)
	c.must(request{command: cmdWrite, flags: flagFUA, offset: 5, length: 3}, ok, 1, 2, 3)
	for _, command := range []uint16{cmdFlush, cmdTrim, cmdZeroes, cmdCache} {
		if all := c.must(request{command: command}, ok); len(all) != 1 || all[0].kind != chunkNone {
			t.Errorf("command %d: %v", command, all)
		}
	}
	got, _ := c.reads(77, len(data), 0)
	if string(got) != string(data) {
		t.Error("the data differs")
	}
	c.must(request{command: cmdRead, offset: 1 << 63, length: 1}, einval)
}

// TestNBD28_PayloadLen: what has the flag has a payload, which is read away where the command takes none; a WRITE without
// it has none.
func TestNBD28_PayloadLen(t *testing.T) {
	c := one(t).extended(t)
	for _, command := range []uint16{cmdRead, cmdFlush, cmdTrim, cmdCache, cmdZeroes, cmdStatus, 99} {
		if errno := failure(c.long(request{command: command, flags: flagPayload, cookie: 3}, 700, pattern(700, 1)...)); errno != einval {
			t.Errorf("command %d with a payload: %v", command, errno)
		}
	}
	if errno := failure(c.long(request{command: cmdWrite, cookie: 4}, 700)); errno != einval {
		t.Errorf("a WRITE without the flag: %v", errno)
	}
	if errno := failure(c.long(request{command: cmdWrite, flags: flagPayload, cookie: 4}, 0)); errno != ok {
		t.Errorf("a WRITE of nothing: %v", errno)
	}
	if errno := failure(c.long(request{command: cmdWrite, flags: flagPayload, cookie: 5}, 64<<20+1, make([]byte, 64<<20+1)...)); errno != einval {
		t.Errorf("a payload that is too long: %v", errno)
	}
	c.reads(0, 100, 0)
	c.send(request{command: cmdTrim, flags: flagPayload}.bytes64(1<<32 + 5))
	c.closed()
}

func TestNBD28_CompactRequestsAreNotSpokenThere(t *testing.T) {
	c := one(t).extended(t)
	c.send(append(request{command: cmdFlush}.bytes(), 0, 0, 0, 0))
	c.closed()
}

// TestNBD28_LongRanges: lengths of 64 bits are served, in steps that each let the export be drained, and what the device
// hears covers them.
func TestNBD28_LongRanges(t *testing.T) {
	var seen notes
	dev := &nbdtest.Hooked{Full: endless{nbdtest.NewMemory(0)}, Before: seen.take}
	c := serve(t, nbdtest.NewExports(nbd.NewExport("vol", dev, nbd.Options{}))).extended(t)
	const length = 1<<33 + 7
	for command, want := range map[uint16]string{
		cmdTrim:   "trim 5 4294967296, trim 4294967301 4294967296, trim 8589934597 7",
		cmdZeroes: "zero 5 4294967296, zero 4294967301 4294967296, zero 8589934597 7",
		cmdCache:  "cache 5 4294967296, cache 4294967301 4294967296, cache 8589934597 7",
	} {
		if errno := failure(c.long(request{command: command, cookie: 9, offset: 5}, length)); errno != ok {
			t.Errorf("command %d: %v", command, errno)
		}
		if got := seen.taken(); got != want {
			t.Error(got)
		}
	}
	c.long(request{command: cmdTrim, flags: flagFUA, cookie: 9}, 1<<32+1)
	if got := seen.taken(); got != "trim 0 4294967296, trim 4294967296 1, sync 0 0" {
		t.Error(got)
	}
	for r, want := range map[request]error{
		{command: cmdTrim, offset: 1 << 62}: einval, {command: cmdZeroes, offset: 1 << 62}: enospc, {command: cmdStatus, offset: 1 << 62}: einval,
		{command: cmdRead}: eoverflow,
	} {
		if errno := failure(c.long(r, 1<<63)); errno != want {
			t.Errorf("%+v: %v, want %v", r, errno, want)
		}
	}
	if got := seen.taken(); got != "" {
		t.Errorf("requests past the end reach the device: %s", got)
	}
}

func TestNBD28_LongExtents(t *testing.T) {
	c := serve(t, nbdtest.NewExports(nbd.NewExport("vol", holey{}, nbd.Options{}))).extended(t)
	all := c.long(request{command: cmdStatus, offset: 1 << 40}, 1<<50)
	if string(all[0].data) != "\x00\x00\x00\x01\x00\x00\x00\x01"+"\x00\x04\x00\x00\x00\x00\x00\x00"+"\x00\x00\x00\x00\x00\x00\x00\x03" {
		t.Errorf("%x", all[0].data)
	}
}

// holey is one large hole.
type holey struct{ endless }

func (holey) Extent(off, n int64) (int64, bool, bool, error) { return n, true, true, nil }
