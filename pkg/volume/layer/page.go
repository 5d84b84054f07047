package layer

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/google/uuid"
)

// states are the states of one record's blocks, two bits each, the first in the low bits.
type states [recordStateLen]byte

// uniform are records whose blocks all have one state. They are shared and never changed.
var uniform = [4]*states{fill(Absent), fill(Data), fill(Zero), fill(Reserved)}

func fill(with State) *states {
	s := new(states)
	for i := range s {
		s[i] = byte(with) * 0x55
	}
	return s
}

// shared is s, or the uniform record that equals it: most of a disk costs no memory of its own.
func (s *states) shared() *states {
	if u := uniform[s.get(0)]; *u == *s {
		return u
	}
	return s
}

func (s *states) get(i int) State { return State(s[i/4]>>(i%4*2)) & 3 }

func (s *states) set(i int, to State) {
	shift := i % 4 * 2
	s[i/4] = s[i/4]&^(3<<shift) | byte(to)<<shift
}

// run is how many blocks from i on, at most to end, share the state of block i.
func (s *states) run(i, end int) int {
	first := s.get(i)
	if s == uniform[first] {
		return end - i
	}
	return s.upTo(i, end, first) - i
}

// all tells whether blocks lo to hi-1 have a state.
func (s *states) all(lo, hi int, state State) bool {
	return s == uniform[state] || s.upTo(lo, hi, state) == hi
}

// upTo is the first block from i on that has another state, or end: by 32 blocks, then by one.
func (s *states) upTo(i, end int, state State) int {
	whole := uint64(state) * 0x5555555555555555
	for i < end {
		if i%32 == 0 && i+32 <= end && binary.LittleEndian.Uint64(s[i/4:]) == whole {
			i += 32
			continue
		}
		if s.get(i) != state {
			break
		}
		i++
	}
	return i
}

// partSum is the sum of one part, bound to its layer and place.
func partSum(layer uuid.UUID, record int64, part int, p []byte) uint32 {
	var place [28]byte
	copy(place[:], layer[:])
	binary.LittleEndian.PutUint64(place[16:], uint64(record))
	binary.LittleEndian.PutUint32(place[24:], uint32(part))
	return crc32.Update(crc32.Checksum(place[:], castagnoli), castagnoli, p[:partSize-4])
}

// encodePage gives the page of one generation of a record. write tells this writing of it from every other.
func encodePage(layer uuid.UUID, record int64, generation uint64, write uint32, s *states) []byte {
	page := make([]byte, pageSize)
	for i := range partsPerPage {
		p := page[i*partSize : (i+1)*partSize]
		copy(p, s[i*partStateLen:(i+1)*partStateLen])
		binary.LittleEndian.PutUint64(p[partStateLen:], generation)
		binary.LittleEndian.PutUint32(p[partStateLen+8:], write)
		binary.LittleEndian.PutUint32(p[partSize-4:], partSum(layer, record, i, p))
	}
	return page
}

// stamp tells which writing of which generation a part belongs to.
type stamp struct {
	generation uint64
	write      uint32
}

// page is a page as it was found: how many of its parts are blank, how many are bad, and the stamps of the good ones.
type page struct {
	bytes []byte
	blank int
	bad   int
	good  map[stamp]int
}

// inspect sorts the parts of a page. odd tells which of the two pages it is.
func inspect(layer uuid.UUID, record int64, odd bool, bytes []byte) page {
	found := page{bytes: bytes, good: map[stamp]int{}}
	for i := range partsPerPage {
		p := bytes[i*partSize : (i+1)*partSize]
		generation := binary.LittleEndian.Uint64(p[partStateLen:])
		switch {
		case [partSize]byte(p) == [partSize]byte{}:
			found.blank++
		case binary.LittleEndian.Uint32(p[partSize-4:]) != partSum(layer, record, i, p),
			generation == 0, generation%2 == 1 != odd:
			found.bad++
		default:
			found.good[stamp{generation, binary.LittleEndian.Uint32(p[partStateLen+8:])}]++
		}
	}
	return found
}

func (p page) isBlank() bool { return p.blank == partsPerPage }

// whole is the generation of a page whose parts are all good and of one write, else 0.
func (p page) whole() uint64 {
	for s, n := range p.good {
		if n == partsPerPage {
			return s.generation
		}
	}
	return 0
}

// of counts the good parts of a generation, and the writes that they come from.
func (p page) of(generation uint64) (parts, writes int) {
	for s, n := range p.good {
		if s.generation == generation {
			parts += n
			writes++
		}
	}
	return parts, writes
}

// torn tells whether this page can be writes of generation g+1 that never became durable, over generation g-1 (over
// nothing where g is 0 or 1), or nothing but that older generation: one old part proves it, and so do parts of two writes.
func (p page) torn(g uint64) bool {
	next, writes := p.of(g + 1)
	old := p.blank
	if g > 1 {
		if p.blank > 0 {
			return false
		}
		old, _ = p.of(g - 1)
	}
	return next+old+p.bad == partsPerPage && (old > 0 || writes > 1)
}

func (p page) states() *states {
	s := new(states)
	for i := range partsPerPage {
		copy(s[i*partStateLen:(i+1)*partStateLen], p.bytes[i*partSize:])
	}
	return s
}

// verdict is what a pair of pages says: the generation that counts (0: never written), its states, and whether the
// other page holds damage that costs nothing.
type verdict struct {
	generation uint64
	states     *states
	stale      bool
}

// judge applies the table of docs/disk-format.md to the two pages of a record.
func judge(odd, even page) (verdict, error) {
	newer, older := odd, even
	if even.whole() > odd.whole() {
		newer, older = even, odd
	}
	g := newer.whole()
	switch {
	case g == 0 && even.isBlank() && (odd.isBlank() || odd.torn(0)):
		return verdict{states: uniform[Absent], stale: odd.bad > 0}, nil
	case g != 0 && older.torn(g):
		return verdict{generation: g, states: newer.states().shared(), stale: older.bad > 0}, nil
	}
	return verdict{}, fmt.Errorf("%w: neither page of a map record can be trusted", ErrDamaged)
}
