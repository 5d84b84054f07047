//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"
)

// These tests fail where a client and the server do not agree on what makes them efficient: without it everything is read and
// sent, which shows in nothing but time.

// negotiated is an nbdsh script: libnbd got all that it can ask for, and uses it.
const negotiated = `
h.set_strict_mode(0) # libnbd itself refuses what is not whole blocks
assert h.get_structured_replies_negotiated(), "no structured replies"
assert h.can_meta_context("base:allocation"), "no base:allocation"
for name in ("df", "fast_zero", "cache", "multi_conn", "flush", "fua", "trim", "zero"):
    assert getattr(h, "can_" + name)(), "can't " + name

M = 1 << 20
def extents(at, n, flags=0):
    """What BLOCK_STATUS tells of a range, asked until all of it is told; neighbours that are alike are one."""
    found, end = [], at + n
    def told(context, offset, entries, error):
        nonlocal at
        assert context == "base:allocation" and offset == at and entries
        for length, state in zip(entries[::2], entries[1::2]):
            assert length
            length = min(length, end - at)
            at += length
            if found and found[-1][1] == state:
                found[-1] = (found[-1][0] + length, state)
            elif length:
                found.append((length, state))
    while at < end:
        h.block_status(end - at, at, told, flags)
    return found

def chunks(at, n, flags=0):
    """The kinds of chunks that a read is answered with, and what they held."""
    kinds, data = [], bytearray(b"?" * n)
    def chunk(part, offset, kind, error):
        kinds.append((offset, len(part), kind))
        data[offset - at:offset - at + len(part)] = part
    whole = h.pread_structured(n, at, chunk, flags)
    assert whole == data, "the chunks do not cover what was read"
    return kinds, bytes(whole)
`

// holes is what a disk shows that hides nothing: an empty one is one hole, data is none, and what is trimmed is a hole again.
const holes = negotiated + `
assert extents(0, 8 * M) == [(8 * M, 3)], extents(0, 8 * M)
h.pwrite(b"a" * 2 * M, M)
h.flush()
assert extents(0, 8 * M) == [(M, 3), (2 * M, 0), (5 * M, 3)], extents(0, 8 * M)
assert extents(M + 5, 10) == [(10, 0)] and extents(3 * M + 1, 7) == [(7, 3)], "ranges that are not whole blocks"

kinds, data = chunks(0, 4 * M)
assert data == bytes(M) + b"a" * 2 * M + bytes(M)
assert any(k == nbd.READ_HOLE for _, _, k in kinds), "no hole in %r" % kinds
assert sum(n for _, n, k in kinds if k == nbd.READ_DATA) == 2 * M, "zeros are sent: %r" % kinds
kinds, data = chunks(M - 4096, 8192, nbd.CMD_FLAG_DF)
assert kinds == [(M - 4096, 8192, nbd.READ_DATA)] and data == bytes(4096) + b"a" * 4096, kinds

h.trim(M, M)
assert extents(0, 8 * M) == [(2 * M, 3), (M, 0), (5 * M, 3)], extents(0, 8 * M)
h.zero(M, 6 * M, nbd.CMD_FLAG_NO_HOLE)
assert all(state & 2 for _, state in extents(6 * M, M)), "zeros that are no hole read as zeros"
h.zero(M, 2 * M, nbd.CMD_FLAG_FAST_ZERO)
assert h.pread(2 * M, 2 * M) == bytes(2 * M)
h.cache(4 * M, 0)
one = []
h.block_status(8 * M, 0, lambda c, o, entries, e: one.append(len(entries)), nbd.CMD_FLAG_REQ_ONE)
assert one == [2], "REQ_ONE is answered with %r" % one
`

// hidden is the same of a disk that hides its holes: data everywhere, whatever was written.
const hidden = negotiated + `
assert extents(0, 8 * M) == [(8 * M, 0)], extents(0, 8 * M)
h.pwrite(b"a" * M, M)
h.trim(M, 0)
h.zero(M, 3 * M)
assert extents(0, 8 * M) == [(8 * M, 0)], extents(0, 8 * M)
kinds, data = chunks(0, 8 * M)
assert data == bytes(M) + b"a" * M + bytes(6 * M)
assert all(k == nbd.READ_DATA for _, _, k in kinds), kinds
`

func nbdsh(t *testing.T, uri, script string) {
	t.Helper()
	tool(t, "nbdsh", "-c", "h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)", "-c", fmt.Sprintf("h.connect_uri(%q)", uri), "-c", script)
}

func TestNBD25_LibnbdIsToldOfHoles(t *testing.T) {
	eachDisk(t, "8M", func(t *testing.T, d *daemon, name, uri string) { nbdsh(t, uri, holes) })
}

func TestNBD27_HiddenHoles(t *testing.T) {
	eachDisk(t, "8M", func(t *testing.T, d *daemon, name, uri string) {
		d.do("detach", name)
		d.do("disk", "delete", name, "--yes")
		for _, kind := range disks {
			if kind.name == name && !d.create(name, "4M", append(kind.flags, "--hide-holes")...).HideHoles {
				t.Error("disk create does not say that holes are hidden")
			}
		}
		d.do("disk", "extend", name, "--size", "8M")
		if !d.show(name).HideHoles {
			t.Error("disk show does not say that holes are hidden")
		}
		nbdsh(t, d.attach(name), hidden)
		if got, want := nbdMap(t, uri), []extent{{0, 8 << 20, 0}}; !reflect.DeepEqual(got, want) {
			t.Errorf("nbdinfo --map says %v", got)
		}
		out := filepath.Join(t.TempDir(), "copy")
		tool(t, "nbdcopy", "--sparse=0", uri, out)
		if got := allocated(t, out); got < 8<<20 {
			t.Errorf("a copy takes %d bytes: the client was told of holes", got)
		}
	})
}

// extent is a part of a disk as nbdinfo and qemu-img show it. State is that of base:allocation: 1 for a hole, 2 for zeros.
type extent struct{ at, length, state int64 }

// nbdMap is nbdinfo's map of an export.
func nbdMap(t *testing.T, uri string) (runs []extent) {
	t.Helper()
	var list []struct{ Offset, Length, Type int64 }
	check(t, json.Unmarshal([]byte(tool(t, "nbdinfo", "--map", "--json", uri)), &list))
	for _, r := range list {
		runs = append(runs, extent{r.Offset, r.Length, r.Type})
	}
	return runs
}

// qemuMap is QEMU's.
func qemuMap(t *testing.T, uri string) (runs []extent) {
	t.Helper()
	var list []struct {
		Start, Length       int64
		Zero, Data, Present bool
	}
	check(t, json.Unmarshal([]byte(tool(t, "qemu-img", "map", "-f", "raw", "--output=json", uri)), &list))
	for _, r := range list {
		state := int64(0)
		if !r.Data {
			state |= 1
		}
		if r.Zero {
			state |= 2
		}
		runs = append(runs, extent{r.Start, r.Length, state})
	}
	return runs
}

// allocated is what a file takes of its file system.
func allocated(t *testing.T, path string) int64 {
	t.Helper()
	var st syscall.Stat_t
	check(t, syscall.Stat(path, &st))
	return st.Blocks * 512
}

// What is written, trimmed, and left alone shows on the maps of nbdinfo and QEMU alike, also after the next attach.
func TestNBD27_Maps(t *testing.T) {
	const m = 1 << 20
	eachDisk(t, "64M", func(t *testing.T, d *daemon, name, uri string) {
		if got := nbdMap(t, uri); !reflect.DeepEqual(got, []extent{{0, 64 * m, 3}}) {
			t.Errorf("an empty disk is %v", got)
		}
		c := dial(t, uri)
		write(t, c, noise(name, 8*m), 4*m)
		write(t, c, noise(name, m), 40*m)
		check(t, c.Trim(6*m, 2*m))
		check(t, c.Flush())
		want := []extent{{0, 4 * m, 3}, {4 * m, 2 * m, 0}, {6 * m, 2 * m, 3}, {8 * m, 4 * m, 0}, {12 * m, 28 * m, 3}, {40 * m, m, 0}, {41 * m, 23 * m, 3}}
		for _, when := range []string{"at once", "after the next attach"} {
			if got := nbdMap(t, uri); !reflect.DeepEqual(got, want) {
				t.Errorf("%s nbdinfo --map says %v", when, got)
			}
			if got := qemuMap(t, uri); !reflect.DeepEqual(got, want) {
				t.Errorf("%s qemu-img map says %v", when, got)
			}
			d.do("detach", name)
			d.attach(name)
		}
	})
}

// nbdcopy with as many connections as it likes, from a file, to another export and to a file: the bytes are the same, and so are
// the holes, since nothing that is one is read or written. Asked to, it fills them.
func TestNBD27_NbdcopyKeepsHoles(t *testing.T) {
	const m = 1 << 20
	eachDisk(t, "96M", func(t *testing.T, d *daemon, name, uri string) {
		dir := t.TempDir()
		in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
		writeAt(t, in, noise(name, 8*m), 16*m)
		check(t, os.Truncate(in, 96*m))
		tool(t, "nbdcopy", "--connections=16", "--requests=64", "--threads=4", "--flush", in, uri)
		to := d.second(name, "96M")
		tool(t, "nbdcopy", "--connections=16", "--requests=64", "--threads=4", "--sparse=0", "--destination-is-zero", "--flush", uri, to)
		if got, want := nbdMap(t, to), nbdMap(t, uri); !reflect.DeepEqual(got, want) || len(got) != 3 {
			t.Errorf("the copy's map is %v, the disk's %v", got, want)
		}
		tool(t, "nbdcopy", "--connections=16", "--requests=64", "--sparse=0", to, out)
		tool(t, "cmp", in, out)
		if got := allocated(t, out); got > 12*m {
			t.Errorf("a file with 8 MiB of data takes %d bytes: holes were read", got)
		}
		tool(t, "nbdcopy", "--connections=4", "--allocated", "--flush", in, to)
		tool(t, "nbdcopy", "--connections=4", to, out)
		tool(t, "cmp", in, out)
		for _, r := range nbdMap(t, to) {
			if r.state&1 != 0 {
				t.Errorf("--allocated left the hole %v", r)
			}
		}
	})
}

// second makes and attaches another disk of the kind that a name stands for.
func (d *daemon) second(name, size string) (uri string) {
	d.t.Helper()
	for _, kind := range disks {
		if kind.name == name {
			d.create(name+"-second", size, kind.flags...)
		}
	}
	return d.attach(name + "-second")
}

func writeAt(t *testing.T, path string, data []byte, at int64) {
	t.Helper()
	f, err := os.Create(path)
	check(t, err)
	defer f.Close()
	_, err = f.WriteAt(data, at)
	check(t, err)
}
