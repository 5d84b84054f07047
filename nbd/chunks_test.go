package nbd_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"syscall"
	"testing"

	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdtest"
)

// Chunks, as doc/proto.md numbers them.
const (
	chunkNone        = 0
	chunkData        = 1
	chunkHole        = 2
	chunkStatus      = 5
	chunkStatusExt   = 6
	chunkError       = 1<<15 + 1
	chunkErrorOffset = 1<<15 + 2
	chunkDone        = 1

	eoverflow = syscall.EOVERFLOW
	enotsup   = syscall.ENOTSUP
)

// chunky is a raw client that has agreed on structured replies, or on extended headers.
type chunky struct {
	*raw
	extended bool
}

// chunkWays runs a test with structured replies and with extended headers.
func chunkWays(t *testing.T, run func(t *testing.T, enter func(h *house) *chunky)) {
	for name, option := range map[string]uint32{"structured": optStructured, "extended": optExtended} {
		t.Run(name, func(t *testing.T) {
			run(t, func(h *house) *chunky {
				t.Helper()
				c := h.connect(t, fixedFlags)
				c.want(option, nil, repAck)
				c.contexts(optSetMeta, askMeta("vol", "base:allocation"))
				c.want(optGo, ask("vol"), repAck)
				return &chunky{c, option == optExtended}
			})
		})
	}
}

// bytes64 is a request with an extended header; bytes is what the connection speaks.
func (r request) bytes64(length uint64, payload ...byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, 0x21e41c71)
	b = binary.BigEndian.AppendUint16(b, r.flags)
	b = binary.BigEndian.AppendUint16(b, r.command)
	b = binary.BigEndian.AppendUint64(b, r.cookie)
	b = binary.BigEndian.AppendUint64(b, r.offset)
	return append(binary.BigEndian.AppendUint64(b, length), payload...)
}

func (c *chunky) bytes(r request, payload ...byte) []byte {
	if !c.extended {
		return r.bytes(payload...)
	}
	if r.command == cmdWrite {
		r.flags |= flagPayload
	}
	return r.bytes64(uint64(r.length), payload...)
}

type chunk struct {
	flags, kind uint16
	cookie      uint64
	data        []byte
	simple      bool
	errno       syscall.Errno // of a simple reply, or an error chunk
}

// chunk reads one chunk, or a simple reply where those are allowed: to what is not a READ, without extended headers.
func (c *chunky) chunk(r request) chunk {
	c.t.Helper()
	head := c.read(16)
	switch magic := binary.BigEndian.Uint32(head); {
	case c.extended && magic == 0x6e8a278c:
		head = append(head, c.read(16)...)
		if binary.BigEndian.Uint64(head[16:]) != r.offset {
			c.t.Fatalf("chunk %x: the offset is not the request's", head)
		}
	case !c.extended && magic == 0x668e33ef:
		head = append(head, c.read(4)...)
		head = append(head, head[16:]...) // where the length of an extended one ends
	case !c.extended && magic == 0x67446698 && r.command != cmdRead:
		return chunk{flags: chunkDone, cookie: binary.BigEndian.Uint64(head[8:]), simple: true,
			errno: syscall.Errno(binary.BigEndian.Uint32(head[4:]))}
	default:
		c.t.Fatalf("reply %x to command %d", head, r.command)
	}
	k := chunk{flags: binary.BigEndian.Uint16(head[4:]), kind: binary.BigEndian.Uint16(head[6:]), cookie: binary.BigEndian.Uint64(head[8:])}
	k.data = c.read(int(binary.BigEndian.Uint32(head[len(head)-4:])))
	if k.flags&^chunkDone != 0 || k.cookie != r.cookie {
		c.t.Fatalf("chunk %x to %+v", head, r)
	}
	if k.kind >= 1<<15 {
		c.checkError(k, r)
		k.errno = syscall.Errno(binary.BigEndian.Uint32(k.data))
	}
	return k
}

// checkError looks at an error chunk's layout.
func (c *chunky) checkError(k chunk, r request) {
	c.t.Helper()
	fixed := map[uint16]int{chunkError: 6, chunkErrorOffset: 14}[k.kind]
	if fixed == 0 || len(k.data) < fixed || int(binary.BigEndian.Uint16(k.data[4:])) != len(k.data)-fixed || binary.BigEndian.Uint32(k.data) == 0 {
		c.t.Fatalf("error chunk %d: %x", k.kind, k.data)
	}
	if k.kind == chunkErrorOffset && (k.offset() < r.offset || k.offset() >= r.offset+uint64(r.length)) {
		c.t.Fatalf("an error at %d, in a request for %d bytes at %d", k.offset(), r.length, r.offset)
	}
}

// offset is what the chunk is about.
func (k chunk) offset() uint64 {
	if k.kind == chunkErrorOffset {
		return binary.BigEndian.Uint64(k.data[len(k.data)-8:])
	}
	return binary.BigEndian.Uint64(k.data)
}

// ask sends a request and reads its answer to the end.
func (c *chunky) ask(r request, payload ...byte) []chunk {
	c.t.Helper()
	if r.cookie == 0 {
		r.cookie = 0xc0ffee00 + uint64(r.command)
	}
	c.send(c.bytes(r, payload...))
	return c.answer(r)
}

func (c *chunky) answer(r request) (all []chunk) {
	c.t.Helper()
	for {
		k := c.chunk(r)
		all = append(all, k)
		if k.flags&chunkDone != 0 {
			return all
		}
	}
}

// must sends a request and expects its errno.
func (c *chunky) must(r request, want syscall.Errno, payload ...byte) []chunk {
	c.t.Helper()
	all := c.ask(r, payload...)
	if got := failure(all); got != want {
		c.t.Errorf("%+v: %v, want %v", r, got, want)
	}
	return all
}

func failure(all []chunk) syscall.Errno {
	for _, k := range all {
		if k.errno != 0 {
			return k.errno
		}
	}
	return ok
}

// assemble puts the content chunks of a READ together. They must lie in bounds and not overlap; covered tells that
// nothing is missing. Holes are counted.
func (c *chunky) assemble(r request, all []chunk) (data []byte, holes int, covered bool) {
	c.t.Helper()
	data = make([]byte, r.length)
	seen := make([]bool, r.length)
	for _, k := range all {
		var n uint64
		switch k.kind {
		case chunkData:
			n = uint64(len(k.data) - 8)
		case chunkHole:
			holes++
			n = uint64(binary.BigEndian.Uint32(k.data[8:]))
		default:
			continue
		}
		at := k.offset() - r.offset
		if n == 0 || k.offset() < r.offset || at+n > uint64(r.length) || k.kind == chunkHole && len(k.data) != 12 {
			c.t.Fatalf("chunk %d of %d bytes at %d, in a READ of %d at %d", k.kind, n, k.offset(), r.length, r.offset)
		}
		for i := at; i < at+n; i++ {
			if seen[i] {
				c.t.Fatalf("byte %d comes twice", r.offset+i)
			}
			seen[i] = true
		}
		if k.kind == chunkData {
			copy(data[at:], k.data[8:])
		}
	}
	return data, holes, !slices.Contains(seen, false)
}

// reads sends a READ that must be served and returns the data and its chunks.
func (c *chunky) reads(off uint64, n int, flags uint16) ([]byte, []chunk) {
	c.t.Helper()
	r := request{command: cmdRead, flags: flags, offset: off, length: uint32(n)}
	all := c.must(r, ok)
	data, _, covered := c.assemble(r, all)
	if !covered {
		c.t.Fatalf("%d bytes at %d are not all there", n, off)
	}
	return data, all
}

func kinds(all []chunk) (list []uint16) {
	for _, k := range all {
		list = append(list, k.kind)
	}
	return list
}

// sparse is a device with data, zeros that keep their space, and holes.
func sparse() (*nbdtest.Memory, []byte) {
	dev := nbdtest.NewMemory(diskSize)
	want := make([]byte, diskSize)
	for _, span := range [][2]int{{0, 40_960}, {81_920, 4096}, {90_112, 300_000}, {600_000, diskSize - 600_000}} {
		p := pattern(span[1], uint64(span[0])+3)
		copy(want[span[0]:], p)
		dev.WriteAt(p, int64(span[0]))
	}
	dev.ZeroAt(700_416, 8192, true)
	clear(want[700_416:][:8192])
	return dev, want
}

func TestNBD25_ReadsAreStructured(t *testing.T) {
	chunkWays(t, func(t *testing.T, enter func(*house) *chunky) {
		for name, dev := range map[string]nbd.Device{"nowait": nil, "waiting": nil} {
			t.Run(name, func(t *testing.T) {
				memory, want := sparse()
				if dev = memory; name == "waiting" {
					dev = &nbdtest.Hooked{Full: memory, Before: func(nbdtest.Op, int64, int64) error { return nil }}
				}
				c := enter(serve(t, nbdtest.NewExports(nbd.NewExport("vol", dev, nbd.Options{}))))
				for _, off := range []int{0, 1, 4095, 40_000, 81_920, 390_000, 700_000} {
					for _, n := range []int{1, 511, 4096, 4097, 70_000, 131_072, 131_073, diskSize - off} {
						n = min(n, diskSize-off)
						for _, flags := range []uint16{0, flagDF, flagFUA} {
							got, all := c.reads(uint64(off), n, flags)
							if !bytes.Equal(got, want[off:off+n]) {
								t.Fatalf("%d bytes at %d differ", n, off)
							}
							if flags == flagDF && !slices.Equal(kinds(all), []uint16{chunkData}) {
								t.Fatalf("%d bytes at %d without fragments: chunks %v", n, off, kinds(all))
							}
						}
					}
				}
				// There is no content chunk of no bytes.
				if all := c.must(request{command: cmdRead}, ok); !slices.Equal(kinds(all), []uint16{chunkNone}) {
					t.Errorf("a READ of nothing: chunks %v", kinds(all))
				}
			})
		}
	})
}

func TestNBD25_ZerosAreHoles(t *testing.T) {
	chunkWays(t, func(t *testing.T, enter func(*house) *chunky) {
		dev, _ := sparse()
		c := enter(serve(t, nbdtest.NewExports(nbd.NewExport("vol", dev, nbd.Options{}))))
		for _, one := range []struct {
			off  uint64
			n    int
			want []uint16
		}{
			{40_960, 40_960, []uint16{chunkHole}},
			{40_960, 4096, []uint16{chunkHole}},
			{50_001, 4096, []uint16{chunkHole}},
			{50_000, 4095, []uint16{chunkData}}, // too few to be worth asking
			{0, 4096, []uint16{chunkData}},
			{700_416, 8192, []uint16{chunkHole}}, // zeros that keep their space
			{36_864, 49_152, []uint16{chunkData, chunkHole, chunkData}},
			{81_920, 12_288, []uint16{chunkData, chunkHole, chunkData}},
			{40_000, 1960, []uint16{chunkData}},
			{0, 131_072, []uint16{chunkData, chunkHole, chunkData, chunkHole, chunkData}},
		} {
			if _, all := c.reads(one.off, one.n, 0); !slices.Equal(kinds(all), one.want) {
				t.Errorf("%d bytes at %d: chunks %v, want %v", one.n, one.off, kinds(all), one.want)
			}
		}
	})
}

func TestNBD25_ErrorsAreStructured(t *testing.T) {
	chunkWays(t, func(t *testing.T, enter func(*house) *chunky) {
		c := enter(one(t))
		for r, want := range map[request]syscall.Errno{
			{command: cmdRead, offset: diskSize, length: 1}:         einval,
			{command: cmdRead, flags: flagNoHole, length: 1}:        einval,
			{command: cmdRead, length: 64<<20 + 1}:                  eoverflow,
			{command: cmdWrite, flags: flagDF}:                      einval,
			{command: cmdZeroes, offset: diskSize, length: 1}:       enospc,
			{command: cmdStatus, offset: diskSize - 1, length: 512}: einval,
			{command: 99, length: 512}:                              einval,
		} {
			if all := c.must(r, want); !slices.Equal(kinds(all), []uint16{chunkError}) {
				t.Errorf("%+v: chunks %v", r, kinds(all))
			}
		}
		c.must(request{command: cmdFlush}, ok)
	})
}

// TestNBD25_AnErrorInALaterPiece: what was read before it is there, the error says where it is, and no chunk that came
// before was the last.
func TestNBD25_AnErrorInALaterPiece(t *testing.T) {
	const bad = 500_000
	fault := func(off, n int64) error {
		if off <= bad && bad < off+n {
			return enomem
		}
		return nil
	}
	for _, nowait := range []bool{true, false} {
		chunkWays(t, func(t *testing.T, enter func(*house) *chunky) {
			dev := &nbdtest.Hooked{Full: nbdtest.NewMemory(diskSize), Before: func(op nbdtest.Op, off, n int64) error {
				if op == nbdtest.Read {
					return fault(off, n)
				}
				return nil
			}}
			if nowait {
				dev.Nowait = fault
			}
			dev.Full.WriteAt(pattern(diskSize, 1), 0)
			c := enter(serve(t, nbdtest.NewExports(nbd.NewExport("vol", dev, nbd.Options{}))))
			r := request{command: cmdRead, cookie: 7, length: diskSize}
			all := c.must(r, enomem)
			data, _, covered := c.assemble(r, all)
			if covered || !bytes.Equal(data[:262_144], pattern(diskSize, 1)[:262_144]) {
				t.Error("the pieces before the error are not there, or what can't be read is")
			}
			i := slices.IndexFunc(all, func(k chunk) bool { return k.errno != 0 })
			if at := all[i].offset(); all[i].kind != chunkErrorOffset || at > bad || at+(256<<10) < bad {
				t.Errorf("error chunk %d at %d", all[i].kind, at)
			}
			c.must(request{command: cmdRead, flags: flagDF, length: diskSize}, enomem)
			c.must(request{command: cmdRead, offset: bad, length: 1}, enomem)
			c.reads(0, 4096, 0)
		})
	}
}

// TestNBD25_SomeOfAReadWaits: pieces that are at hand and pieces that wait for storage come in one answer, and the last
// chunk says so whoever sends it.
func TestNBD25_SomeOfAReadWaits(t *testing.T) {
	rounds := uint64(60)
	if testing.Short() {
		rounds = 15
	}
	chunkWays(t, func(t *testing.T, enter func(*house) *chunky) {
		for round := range rounds {
			dev := &nbdtest.Hooked{Full: nbdtest.NewMemory(diskSize), Before: func(nbdtest.Op, int64, int64) error { return nil },
				Nowait: func(off, _ int64) error {
					if (uint64(off)>>17*0x9e3779b97f4a7c15+round*77)>>5%3 == 0 {
						return syscall.EAGAIN
					}
					return nil
				}}
			dev.Full.WriteAt(pattern(diskSize, round), 0)
			t.Run("", func(t *testing.T) {
				c := enter(serve(t, nbdtest.NewExports(nbd.NewExport("vol", dev, nbd.Options{}))))
				c.t = t
				for _, flags := range []uint16{0, flagDF} {
					if got, _ := c.reads(5, diskSize-9, flags); !bytes.Equal(got, pattern(diskSize, round)[5:diskSize-4]) {
						t.Fatal("the data differs")
					}
				}
			})
		}
	})
}

// extent is what BLOCK_STATUS tells.
type extent struct {
	length uint64
	state  uint64
}

// status asks for the extents of a range.
func (c *chunky) status(r request) (list []extent) {
	c.t.Helper()
	r.command = cmdStatus
	all := c.must(r, ok)
	kind, word := uint16(chunkStatus), 4
	if c.extended {
		kind, word = chunkStatusExt, 8
	}
	if len(all) != 1 || all[0].kind != kind || binary.BigEndian.Uint32(all[0].data) != 1 {
		c.t.Fatalf("chunks %v", all)
	}
	b := all[0].data[4:]
	if c.extended {
		if n := binary.BigEndian.Uint32(b); int(n)*16 != len(b)-4 {
			c.t.Fatalf("%d extents in %d bytes", n, len(b))
		}
		b = b[4:]
	}
	number := func(b []byte) (n uint64) {
		for _, x := range b[:word] {
			n = n<<8 | uint64(x)
		}
		return n
	}
	for ; len(b) > 0; b = b[2*word:] {
		list = append(list, extent{number(b), number(b[word:])})
	}
	return list
}

func TestNBD27_BlockStatus(t *testing.T) {
	chunkWays(t, func(t *testing.T, enter func(*house) *chunky) {
		dev, _ := sparse()
		c := enter(serve(t, nbdtest.NewExports(nbd.NewExport("vol", dev, nbd.Options{}))))
		const data, hole, zeros = 0, 3, 2
		whole := []extent{{40_960, data}, {40_960, hole}, {4096, data}, {4096, hole}, {303_104, data}, {204_800, hole}, {102_400, data},
			{8192, zeros}, {diskSize - 708_608, data}}
		for _, one := range []struct {
			r    request
			want []extent
		}{
			{request{length: diskSize}, whole},
			{request{length: 40_960}, whole[:1]},
			{request{offset: 50_001, length: 100}, []extent{{100, hole}}},
			{request{offset: 40_959, length: 3}, []extent{{1, data}, {2, hole}}},
			{request{length: diskSize, flags: flagReqOne}, whole[:1]},
			{request{offset: 4096, length: 100, flags: flagReqOne}, []extent{{100, data}}},
			{request{offset: diskSize - 1, length: 1}, []extent{{1, data}}},
		} {
			if got := c.status(one.r); !slices.Equal(got, one.want) {
				t.Errorf("%+v: %v, want %v", one.r, got, one.want)
			}
		}
		c.must(request{command: cmdStatus}, einval) // there is no extent that is not empty
		c.must(request{command: cmdStatus, flags: flagDF, length: 512}, einval)
	})
}

// TestNBD27_NotUnlessAgreed: without base:allocation there is no BLOCK_STATUS.
func TestNBD27_NotUnlessAgreed(t *testing.T) {
	h := one(t)
	c := h.connect(t, fixedFlags)
	c.want(optStructured, nil, repAck)
	c.want(optGo, ask("vol"), repAck)
	(&chunky{c, false}).must(request{command: cmdStatus, length: 512}, einval)
}

// checkered is a device whose blocks are data and hole in turn, without end.
type checkered struct{ endless }

func (checkered) Extent(off, n int64) (int64, bool, bool, error) {
	return min(n, 4096-off%4096), off/4096%2 == 1, off/4096%2 == 1, nil
}

// coalescing is a device that tells of its holes bit by bit.
type coalescing struct{ endless }

func (coalescing) Extent(off, n int64) (int64, bool, bool, error) {
	return min(n, 1<<20-off%(1<<20)), off >= 1<<30, off >= 1<<30, nil
}

func TestNBD27_ManyExtents(t *testing.T) {
	chunkWays(t, func(t *testing.T, enter func(*house) *chunky) {
		c := enter(serve(t, nbdtest.NewExports(nbd.NewExport("vol", checkered{}, nbd.Options{}))))
		list := c.status(request{length: 1<<32 - 1})
		if len(list) < 1<<14 || len(list) > 1<<20 {
			t.Errorf("%d extents", len(list))
		}
		for i, e := range list {
			if e.length != 4096 || e.state != uint64(i%2*3) {
				t.Fatalf("extent %d is %v", i, e)
			}
		}
	})
	chunkWays(t, func(t *testing.T, enter func(*house) *chunky) {
		c := enter(serve(t, nbdtest.NewExports(nbd.NewExport("vol", coalescing{}, nbd.Options{}))))
		if got := c.status(request{length: 1<<32 - 1}); !slices.Equal(got, []extent{{1 << 30, 0}, {1<<32 - 1 - 1<<30, 3}}) {
			t.Errorf("neighbours of one kind are told apart: %v", got)
		}
	})
}

func TestNBD27_WithoutExtentsAllIsData(t *testing.T) {
	chunkWays(t, func(t *testing.T, enter func(*house) *chunky) {
		c := enter(serve(t, nbdtest.NewExports(nbd.NewExport("vol", bare{nbdtest.NewMemory(diskSize)}, nbd.Options{}))))
		if got := c.status(request{offset: 5, length: 7000}); !slices.Equal(got, []extent{{7000, 0}}) {
			t.Error(got)
		}
		if got, all := c.reads(3, 300_000, 0); !bytes.Equal(got, make([]byte, 300_000)) || slices.Contains(kinds(all), chunkHole) {
			t.Errorf("chunks %v", kinds(all))
		}
	})
}
