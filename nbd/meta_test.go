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
