package attest

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// A trace is a print that is looked for.
type trace struct {
	marks *Marks
	index int
}

// A sieve tells windows that are looked for from nearly all others, without knowing what it looks for. It has a byte for each value
// that a multiplication under a secret key can have, and few of them are set, so that all that passes can be held against the
// strong prints.
type sieve struct {
	set   []byte
	shift int // that makes a product the number of a byte
	known map[window][]trace
}

const (
	minSieve = 15 // 2¹⁵ bytes stay in the processor's first cache
	perTrace = 6  // 2⁶ bytes for each trace
)

func newSieve(marks []*Marks) *sieve {
	n := 0
	for _, m := range marks {
		n += len(m.prints)
	}
	width := min(max(minSieve, bits.Len(uint(n))+perTrace), sieveBits)
	s := &sieve{make([]byte, 1<<width), 64 - width, make(map[window][]trace, n)}
	for _, m := range marks {
		for i, p := range m.prints {
			s.set[p.sieve>>(sieveBits-width)] = 1
			// A disk that was detached twice since the last search is looked for once.
			if !slices.ContainsFunc(s.known[p.strong], func(t trace) bool { return t.marks.layer == m.layer }) {
				s.known[p.strong] = append(s.known[p.strong], trace{m, i})
			}
		}
	}
	return s
}

// next returns the first place in b, from i on, where a window passes, or -1. Windows that begin with 8 zero bytes do not:
// most memory is zero, and no round key of a random key is like that. Eight windows are looked at together.
//
//go:norace
func (s *sieve) next(b []byte, i int, multiplier uint64) int {
	set, shift, m := s.set, s.shift&63, multiplier
	for ; i+24 <= len(b); i += 8 {
		c := (*[24]byte)(b[i:])
		if head(c[0:])|head(c[8:]) == 0 {
			continue
		}
		passed := set[head(c[0:])*m>>shift] | set[head(c[1:])*m>>shift] | set[head(c[2:])*m>>shift] | set[head(c[3:])*m>>shift] |
			set[head(c[4:])*m>>shift] | set[head(c[5:])*m>>shift] | set[head(c[6:])*m>>shift] | set[head(c[7:])*m>>shift]
		if passed == 0 {
			continue
		}
		if k := s.one(c[:23], m); k >= 0 {
			return i + k
		}
	}
	if k := s.one(b[i:], multiplier); k >= 0 {
		return i + k
	}
	return -1
}

// one looks at window after window.
//
//go:norace
func (s *sieve) one(b []byte, multiplier uint64) int {
	for i := 0; i+len(window{}) <= len(b); i++ {
		if h := head(b[i:]); h != 0 && s.set[h*multiplier>>(s.shift&63)] != 0 {
			return i
		}
	}
	return -1
}

func head(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }
