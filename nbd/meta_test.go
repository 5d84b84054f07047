package nbd_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"nbdcrypt/nbd/nbdtest"
)

// askMeta is the data of LIST_META_CONTEXT and SET_META_CONTEXT.
func askMeta(name string, queries ...string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(name)))
	b = binary.BigEndian.AppendUint32(append(b, name...), uint32(len(queries)))
	for _, q := range queries {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(q))), q...)
	}
	return b
}

// contexts sends either option and returns the contexts that are named, each with its number.
func (c *raw) contexts(id uint32, data []byte) (names []string, ids []uint32) {
	c.t.Helper()
	var told []optReply
	c.option(id, data)
	if last := c.replies(id, &told); last.kind != repAck {
		c.t.Fatalf("option %d: %#x %q", id, last.kind, last.data)
	}
	for _, r := range told {
		if r.kind != repMeta {
			c.t.Fatalf("option %d: reply %#x", id, r.kind)
		}
		names, ids = append(names, string(r.data[4:])), append(ids, binary.BigEndian.Uint32(r.data))
	}
	return names, ids
}

func TestNBD26_NoContextsBeforeStructuredReplies(t *testing.T) {
	c := one(t).connect(t, fixedFlags)
	for _, id := range []uint32{optListMeta, optSetMeta} {
		c.want(id, askMeta("vol", "base:allocation"), repErrInvalid)
	}
	c.want(optStructured, nil, repAck)
	for _, id := range []uint32{optListMeta, optSetMeta} {
		c.want(id, askMeta("vol", "base:allocation"), repAck)
	}
}

func TestNBD26_Contexts(t *testing.T) {
	c := one(t).connect(t, fixedFlags)
	c.want(optStructured, nil, repAck)
	base := []string{"base:allocation"}
	for _, asked := range []struct {
		queries   []string
		list, set []string
	}{
		{nil, base, nil},
		{[]string{"base:"}, base, nil},
		{[]string{"base:allocation"}, base, base},
		{[]string{"base:allocation", "base:", "base:allocation"}, base, base},
		{[]string{"qemu:dirty-bitmap:x", "x-mine:", "base:other", "", "nocolon", "base", "base:allocation2"}, nil, nil},
		{[]string{"qemu:allocation-depth", "base:allocation"}, base, base},
	} {
		for _, name := range []string{"vol", ""} {
			if got, _ := c.contexts(optListMeta, askMeta(name, asked.queries...)); !slices.Equal(got, asked.list) {
				t.Errorf("LIST of %q names %q", asked.queries, got)
			}
			got, ids := c.contexts(optSetMeta, askMeta(name, asked.queries...))
			if !slices.Equal(got, asked.set) || len(ids) > 0 && ids[0] == 0 {
				t.Errorf("SET of %q chooses %q, as %d", asked.queries, got, ids)
			}
		}
	}
}

func TestNBD26_MalformedLengths(t *testing.T) {
	c := one(t).connect(t, fixedFlags)
	c.want(optStructured, nil, repAck)
	good := askMeta("vol", "base:allocation", "base:")
	lie := func(at int, n uint32) []byte {
		b := bytes.Clone(good)
		binary.BigEndian.PutUint32(b[at:], n)
		return b
	}
	for _, id := range []uint32{optListMeta, optSetMeta} {
		for n := range good {
			c.want(id, good[:n], repErrInvalid)
		}
		for _, bad := range [][]byte{append(bytes.Clone(good), 0), lie(0, 1<<32-1), lie(0, 4), lie(7, 3), lie(7, 1), lie(7, 0), lie(7, 1<<32-1), lie(11, 16),
			lie(11, 1<<32-1), askMeta("vo\x00"), askMeta("\xff"), askMeta("vol", "base:\xff")} {
			c.want(id, bad, repErrInvalid)
		}
		c.want(id, askMeta(strings.Repeat("v", 4097)), repErrTooBig)
		c.want(id, askMeta("vol", strings.Repeat("v", 4097)), repErrTooBig)
		c.want(id, askMeta("vol", make([]string, 20_000)...), repErrTooBig)
		c.want(id, askMeta("vol", make([]string, 16_000)...), repAck)
		c.want(id, askMeta("other", "base:allocation"), repErrUnknown)
	}
	c.want(optGo, ask("vol"), repAck)
}

func TestNBD26_ContextsAreForWhoMayOpenTheExport(t *testing.T) {
	exports := nbdtest.NewExports(disk("a"), disk("secret"))
	exports.Denied["secret"] = true
	c := serve(t, exports).connect(t, fixedFlags)
	c.want(optExtended, nil, repAck)
	for _, id := range []uint32{optListMeta, optSetMeta} {
		c.want(id, askMeta("secret"), repErrUnknown)
	}
}

// status tells whether BLOCK_STATUS is served: the connection speaks in chunks, and the answer is extents or an error.
func (c *raw) status() bool {
	c.t.Helper()
	c.send(request{command: cmdStatus, cookie: 7, length: 4096}.bytes())
	served := false
	for {
		head := c.read(20)
		if binary.BigEndian.Uint32(head) != 0x668e33ef || binary.BigEndian.Uint64(head[8:]) != 7 {
			c.t.Fatalf("chunk %x", head)
		}
		data := c.read(int(binary.BigEndian.Uint32(head[16:])))
		switch kind := binary.BigEndian.Uint16(head[6:]); {
		case kind == 5:
			served = true
		case kind != 1<<15+1 || binary.BigEndian.Uint32(data) != uint32(einval):
			c.t.Fatalf("chunk %x with %x", head, data)
		}
		if head[5]&1 != 0 {
			return served
		}
	}
}

// A context is there for the export that it was chosen on, and until the next choice, also one that fails.
func TestNBD26_AContextIsBoundToItsExport(t *testing.T) {
	base := "base:allocation"
	h := serve(t, nbdtest.NewExports(disk("vol"), disk("other")))
	for name, test := range map[string]struct {
		between func(c *raw)
		want    bool
	}{
		"at once":         {func(c *raw) {}, true},
		"other options":   {func(c *raw) { c.want(optInfo, ask("other"), repAck); c.contexts(optListMeta, askMeta("other")) }, true},
		"a GO that fails": {func(c *raw) { c.want(optGo, ask("nothing"), repErrUnknown) }, true},
		"none chosen":     {func(c *raw) { c.contexts(optSetMeta, askMeta("vol")) }, false},
		"another export":  {func(c *raw) { c.contexts(optSetMeta, askMeta("other", base)) }, false},
		"there and back": {func(c *raw) {
			c.contexts(optSetMeta, askMeta("other", base))
			c.contexts(optSetMeta, askMeta("vol", base))
		}, true},
		"unknown export": {func(c *raw) { c.want(optSetMeta, askMeta("nothing", base), repErrUnknown) }, false},
		"malformed":      {func(c *raw) { c.want(optSetMeta, askMeta("vol", base)[:9], repErrInvalid) }, false},
		"too long":       {func(c *raw) { c.want(optSetMeta, make([]byte, 100_000), repErrTooBig) }, false},
		"asked again":    {func(c *raw) { c.want(optStructured, nil, repErrInvalid) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, open := range []func(c *raw){
				func(c *raw) { c.want(optGo, ask("vol"), repAck) },
				func(c *raw) { c.option(optExportName, []byte("vol")); c.read(10) },
			} {
				c := h.connect(t, fixedFlags)
				c.want(optStructured, nil, repAck)
				c.contexts(optSetMeta, askMeta("vol", base))
				test.between(c)
				open(c)
				if got := c.status(); got != test.want {
					t.Errorf("BLOCK_STATUS is served: %v", got)
				}
			}
		})
	}
}

// The default export is the same by either name.
func TestNBD26_AContextOfTheDefaultExport(t *testing.T) {
	h := one(t)
	for _, names := range [][2]string{{"", "vol"}, {"vol", ""}, {"", ""}} {
		c := h.connect(t, fixedFlags)
		c.want(optStructured, nil, repAck)
		c.contexts(optSetMeta, askMeta(names[0], "base:allocation"))
		c.want(optGo, ask(names[1]), repAck)
		if !c.status() {
			t.Errorf("chosen on %q, void on %q", names[0], names[1])
		}
	}
}
