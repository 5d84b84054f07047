package aes256

import (
	"encoding/binary"
	"math/bits"
)

// GHASH (SP 800-38D, 6.4) four bits at a time. An element of GF(2¹²⁸) is 16 bytes read big-endian into two words; the
// coefficient of x⁰ is the highest bit of hi (6.3), so that multiplying by x is a shift to the right.

// hashTable holds the multiples of H: entry n is H times the polynomial whose four coefficients are the bits of n, highest first.
type hashTable [16]struct{ hi, lo uint64 }

// shifted[n] is what the four bits n that a shift by four pushes out come back as, in the top 16 bits.
var shifted = func() (t [16]uint64) {
	for n := range t {
		hi, lo := uint64(0), uint64(n)
		for range 4 {
			hi, lo = timesX(hi, lo)
		}
		t[n] = hi
	}
	return t
}()

// timesX multiplies by x modulo 1 + x + x² + x⁷ + x¹²⁸.
func timesX(hi, lo uint64) (uint64, uint64) {
	return hi>>1 ^ -(lo&1)&(0xe1<<56), lo>>1 | hi<<63
}

func swap(w uint32) uint32 { return bits.ReverseBytes32(w) }

// element turns a block of the cipher into an element of the field.
func element(s0, s1, s2, s3 uint32) (hi, lo uint64) {
	return uint64(swap(s0))<<32 | uint64(swap(s1)), uint64(swap(s2))<<32 | uint64(swap(s3))
}

func (t *hashTable) fill(hi, lo uint64) {
	for n := 8; n > 0; n /= 2 {
		t[n].hi, t[n].lo = hi, lo
		hi, lo = timesX(hi, lo)
	}
	for n := 3; n < 16; n++ {
		low := n & -n // the sum of the entries for the lowest bit and for the others
		if low != n {
			t[n].hi, t[n].lo = t[low].hi^t[n-low].hi, t[low].lo^t[n-low].lo
		}
	}
}

// mul multiplies by H, by Horner's rule from the highest powers down.
func (t *hashTable) mul(hi, lo uint64) (uint64, uint64) {
	var zh, zl uint64
	for _, w := range [2]uint64{lo, hi} {
		for range 16 {
			zh, zl = zh>>4^shifted[zl&15], zl>>4|zh<<60
			m := &t[w&15]
			zh, zl = zh^m.hi, zl^m.lo
			w >>= 4
		}
	}
	return zh, zl
}

// update hashes data, filled up with zeros to whole blocks, onto hi, lo.
func (t *hashTable) update(hi, lo uint64, data []byte) (uint64, uint64) {
	for len(data) >= BlockSize {
		hi, lo = t.mul(hi^binary.BigEndian.Uint64(data), lo^binary.BigEndian.Uint64(data[8:]))
		data = data[BlockSize:]
	}
	if len(data) > 0 {
		var last [BlockSize]byte
		copy(last[:], data)
		hi, lo = t.mul(hi^binary.BigEndian.Uint64(last[:]), lo^binary.BigEndian.Uint64(last[8:]))
	}
	return hi, lo
}
