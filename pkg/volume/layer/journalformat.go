package layer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/google/uuid"
)

// The numbers of docs/disk-format.md, "Journal".
const (
	journalMagic   = "NBDCJNL\n"
	journalVersion = 1
	entrySize      = 32
	// entryMark is in every entry that was written whole: the word that it stands in is written last.
	entryMark = 0x4c4e524a
	// halfSize is the most that one half of a journal holds.
	halfSize = 32 << 20
	// journalSize is the length of every journal.
	journalSize = pageSize + 2*halfSize
)

// ErrStale is wrapped where a journal is not of what was left behind: what it says may have been overtaken, or never happened.
var ErrStale = errors.New("layer: the journal is of something else")

// journalHeader is the first page of a journal: of which run of the machine, which layer, and which opening of it.
type journalHeader struct {
	Boot, layer, Opening uuid.UUID
	files                files
}

// files are the first files of a layer's two volumes, as the kernel numbers them: files that were put back from a copy are others. All
// are zero where a pool has no files.
type files [4]uint64

func (h journalHeader) encode() []byte {
	p := make([]byte, pageSize)
	copy(p, journalMagic)
	binary.LittleEndian.PutUint32(p[8:], journalVersion)
	copy(p[16:], h.Boot[:])
	copy(p[32:], h.layer[:])
	copy(p[48:], h.Opening[:])
	for i, n := range h.files {
		binary.LittleEndian.PutUint64(p[64+8*i:], n)
	}
	binary.LittleEndian.PutUint32(p[pageSize-4:], crc32.Checksum(p[:pageSize-4], castagnoli))
	return p
}

// check refuses a header that is not exactly this one, and says in what it differs.
func (h journalHeader) check(p []byte) error {
	want := h.encode()
	switch {
	case len(p) != pageSize || string(p[:8]) != journalMagic:
		return fmt.Errorf("%w: the journal does not begin as one", ErrDamaged)
	case binary.LittleEndian.Uint64(p[8:]) != journalVersion:
		return fmt.Errorf("%w: journal version %d, flags %#x; this build reads version %d", ErrVersion,
			binary.LittleEndian.Uint32(p[8:]), binary.LittleEndian.Uint32(p[12:]), journalVersion)
	case crc32.Checksum(p[:pageSize-4], castagnoli) != binary.LittleEndian.Uint32(p[pageSize-4:]):
		return fmt.Errorf("%w: the sum of the journal's header is wrong", ErrDamaged)
	}
	for _, field := range []struct {
		from, to int
		what     string
	}{{16, 32, "another boot of this machine"}, {32, 48, "another layer"}, {48, 64, "another opening of the layer"}, {64, 96, "other files in the pool"}} {
		if string(p[field.from:field.to]) != string(want[field.from:field.to]) {
			return fmt.Errorf("%w: %s", ErrStale, field.what)
		}
	}
	if string(p) != string(want) {
		return fmt.Errorf("%w: a field of the journal that this build does not know is set", ErrVersion)
	}
	return nil
}

// seed ties entries to their journal.
func (h journalHeader) seed() uint32 {
	return binary.LittleEndian.Uint32(h.encode()[pageSize-4:])
}

// Change is one change of a map: that many blocks from Block on got a state.
type Change struct {
	Block, Blocks int64
	State         State
}

// entry is a change as it stands in a journal: its first block and state, its blocks, its number there, and a last word that proves that the others
// were written before it.
type entry [entrySize / 8]uint64

// proof is the last word of an entry that begins with p.
func proof(seed uint32, p []byte) uint64 {
	return entryMark<<32 | uint64(crc32.Update(seed, castagnoli, p[:entrySize-8]))
}

func (e *entry) change() Change {
	return Change{Block: int64(e[0] >> 2), Blocks: int64(e[1]), State: State(e[0] & 3)}
}

func readEntry(p []byte) (e entry) {
	for i := range e {
		e[i] = binary.LittleEndian.Uint64(p[8*i:])
	}
	return e
}
