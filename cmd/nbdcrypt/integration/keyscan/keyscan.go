// Package keyscan looks for keys where none may be: in a process's memory, a core dump, a file. It knows a key in every form that
// programs keep keys in: as bytes, as any round key of AES that comes from it, in either order of bytes, in hex, in base64; and it
// finds a part of 16 bytes of any of these at any offset, and a part of 8 where it is half of such a piece.
//
// It is for tests. It keeps keys in ordinary memory and takes no care of them.
package keyscan

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// A Hit is a piece of a secret that was found.
type Hit struct {
	Offset int
	Secret string // its name
	Form   string // what of it, and how it is written
	Size   int    // how many bytes of the blob it takes
}

// String says what was found where.
func (h Hit) String() string {
	return fmt.Sprintf("%d bytes of %s at %#x: %s", h.Size, h.Secret, h.Offset, h.Form)
}

// Half tells that only half of a piece was found. Such 8 bytes are no accident either, but a register can hold them alone.
func (h Hit) Half() bool { return h.Size == 8 }

// A Scanner knows what to look for.
type Scanner struct {
	patterns map[uint64][]pattern // by their first 8 bytes
	sieve    []uint64             // bits for each 8 bytes that begin a pattern
	shift    uint
}

// A pattern is how a secret goes on after 8 bytes that are looked up.
type pattern struct {
	secret, form string
	rest         []byte
	halves       bool // the 8 bytes alone are worth telling
}

// New returns a Scanner that knows nothing.
func New() *Scanner { return &Scanner{patterns: map[uint64][]pattern{}} }

// Public takes out what is no secret though it is made from one, like the id of a key.
func (s *Scanner) Public(value []byte) {
	for at := 0; at+pieceSize <= len(value); at += pieceSize {
		p := piece(value[at:])
		for _, p := range []piece{p, swapped(p)} {
			delete(s.patterns, binary.LittleEndian.Uint64(p[:8]))
			delete(s.patterns, binary.LittleEndian.Uint64(p[8:]))
		}
	}
	s.sieve = nil
}

// Key adds a key: of AES-256, of XTS-AES-256, which is two of them, or of at least 8 bytes of anything else. Zeros are no key.
func (s *Scanner) Key(name string, key []byte) {
	if len(bytes.Trim(key, "\x00")) == 0 {
		return
	}
	switch len(key) {
	case keySize:
		s.addKey(name, key)
	case 2 * keySize:
		s.addKey(name+", data key", key[:keySize])
		s.addKey(name+", tweak key", key[keySize:])
	default:
		for at := 0; at < len(key); at += 8 {
			s.add(pattern{name, "its bytes", nil, false}, key[min(at, len(key)-8):][:8])
		}
	}
	s.addText(name, key)
}

// Material adds memory that held key material of any kind: whatever in it looks random is looked for.
func (s *Scanner) Material(name string, memory []byte) {
	for at := 0; at+pieceSize <= len(memory); at += pieceSize {
		if p := piece(memory[at:]); random(p) {
			s.addPiece(name, fmt.Sprintf("byte %d of %d", at, len(memory)), p)
		}
	}
}

// add adds a pattern that begins with 8 bytes, unless it is there: one round key is often met again.
func (s *Scanner) add(p pattern, first []byte) {
	word := binary.LittleEndian.Uint64(first)
	if word == 0 {
		return // zeros are everywhere
	}
	for _, have := range s.patterns[word] {
		if bytes.Equal(have.rest, p.rest) {
			return
		}
	}
	p.rest = bytes.Clone(p.rest)
	s.patterns[word] = append(s.patterns[word], p)
	s.sieve = nil
}

// Size is how many patterns are looked for.
func (s *Scanner) Size() int { return len(s.patterns) }

// build makes the sieve, of some 16 bits for each pattern. Two of them are set for each, so that few of the bytes that are searched pass.
func (s *Scanner) build() {
	width := uint(10)
	for 4<<width < len(s.patterns) {
		width++
	}
	s.shift = 64 - width
	s.sieve = make([]uint64, 1<<width)
	for word := range s.patterns {
		h := hash(word)
		s.sieve[h>>s.shift] |= mask(h)
	}
}

func hash(word uint64) uint64 { return word * 0x9e3779b97f4a7c15 }

// mask is two bits that depend on others of the hash than those that choose the word.
func mask(h uint64) uint64 { return 1<<(h>>20%64) | 1<<(h>>26%64) }

// Scan searches blob at every offset.
func (s *Scanner) Scan(blob []byte) (hits []Hit) {
	if s.sieve == nil {
		s.build()
	}
	sieve, shift := s.sieve, s.shift
	for at := 0; at+8 <= len(blob); at++ {
		word := binary.LittleEndian.Uint64(blob[at:])
		if word == 0 {
			at += zeros(blob[at+8:])
			continue
		}
		h := hash(word)
		if m := mask(h); sieve[h>>shift]&m == m {
			hits = s.confirm(hits, blob, at, word)
		}
	}
	return hits
}

// zeros is how many of the bytes that follow 8 zeros can be skipped: no pattern begins with 8 zeros.
func zeros(blob []byte) (n int) {
	for n+8 <= len(blob) && binary.LittleEndian.Uint64(blob[n:]) == 0 {
		n += 8
	}
	return n
}

// confirm reports the patterns that are at an offset; halves of what is reported whole are left out.
func (s *Scanner) confirm(hits []Hit, blob []byte, at int, word uint64) []Hit {
	for _, p := range s.patterns[word] {
		h := Hit{at, p.secret, p.form, 8}
		if bytes.HasPrefix(blob[at+8:], p.rest) {
			h.Size += len(p.rest)
		} else if !p.halves {
			continue
		}
		if last := len(hits) - 1; h.Half() && last >= 0 && hits[last].Offset+hits[last].Size >= at+8 {
			continue
		}
		hits = append(hits, h)
	}
	return hits
}
