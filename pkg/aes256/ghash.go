package aes256

import (
	"encoding/binary"
	"math/bits"
)

// An element of GF(2¹²⁸) is 16 bytes read big-endian into two words. The coefficient of x⁰ is the highest bit of hi (SP 800-38D,
// 6.3), so that multiplying by x is a shift to the right.
type element struct{ hi, lo uint64 }

func load(block []byte) element {
	return element{binary.BigEndian.Uint64(block), binary.BigEndian.Uint64(block[8:])}
}

func (a element) store(block []byte) {
	binary.BigEndian.PutUint64(block, a.hi)
	binary.BigEndian.PutUint64(block[8:], a.lo)
}

func (a element) add(b element) element { return element{a.hi ^ b.hi, a.lo ^ b.lo} }

// factor is GHASH's key as mul wants it: its words, and their sum, each split into four with holes of three bits, then the same of
// the words reversed. It lies with the key; no word of the key is whole on the stack.
type factor [6][4]uint64

func (f *factor) set(key *[BlockSize]byte) {
	for i := range f {
		f.split(i, key)
	}
}

//go:noinline
func (f *factor) split(i int, key *[BlockSize]byte) {
	b := load(key[:])
	w := [3]uint64{b.lo, b.hi, b.lo ^ b.hi}[i%3]
	if i >= 3 {
		w = bits.Reverse64(w)
	}
	for n := range f[i] {
		f[i][n] = w & (holes << n)
	}
}

// mul multiplies, modulo 1 + x + x² + x⁷ + x¹²⁸. Three products of words make the low words of Karatsuba's product, and those of
// the words reversed its high ones: the product of the reverses is the reverse of the product.
func (a element) mul(f *factor) element {
	rlo, rhi := bits.Reverse64(a.lo), bits.Reverse64(a.hi)
	lo, hi := mulLow(a.lo, &f[0]), mulLow(a.hi, &f[1])
	mid := mulLow(a.lo^a.hi, &f[2]) ^ lo ^ hi
	loR, hiR := mulLow(rlo, &f[3]), mulLow(rhi, &f[4])
	midR := mulLow(rlo^rhi, &f[5]) ^ loR ^ hiR
	v1, v2, v3 := bits.Reverse64(loR)>>1^mid, hi^bits.Reverse64(midR)>>1, bits.Reverse64(hiR)>>1
	// The bits of an element are in the reverse order of its coefficients, so that the product is one place too low.
	return reduce(lo<<1, v1<<1|lo>>63, v2<<1|v1>>63, v3<<1|v2>>63)
}

// reduce takes four words, the lowest first, modulo the polynomial.
func reduce(v0, v1, v2, v3 uint64) element {
	v1 ^= v0<<63 ^ v0<<62 ^ v0<<57
	v2 ^= v0 ^ v0>>1 ^ v0>>2 ^ v0>>7
	v2 ^= v1<<63 ^ v1<<62 ^ v1<<57
	v3 ^= v1 ^ v1>>1 ^ v1>>2 ^ v1>>7
	return element{v3, v2}
}

// holes are three bits wide: in them carries end.
const holes = 0x1111111111111111

// mulLow is the low word of the product of two polynomials, by products of integers with holes. It takes the same steps whatever
// the bits are, as the processors' multiplications do.
func mulLow(x uint64, y *[4]uint64) uint64 {
	x0, x1, x2, x3 := x&holes, x&(holes<<1), x&(holes<<2), x&(holes<<3)
	z0 := x0*y[0] ^ x1*y[3] ^ x2*y[2] ^ x3*y[1]
	z1 := x0*y[1] ^ x1*y[0] ^ x2*y[3] ^ x3*y[2]
	z2 := x0*y[2] ^ x1*y[1] ^ x2*y[0] ^ x3*y[3]
	z3 := x0*y[3] ^ x1*y[2] ^ x2*y[1] ^ x3*y[0]
	return z0&holes | z1&(holes<<1) | z2&(holes<<2) | z3&(holes<<3)
}

// hash goes on with GHASH (SP 800-38D, 6.4) under the key f from y, over data filled up with zeros to whole blocks.
func (y element) hash(f *factor, data []byte) element {
	for len(data) >= BlockSize {
		y = y.add(load(data)).mul(f)
		data = data[BlockSize:]
	}
	if len(data) > 0 {
		var last [BlockSize]byte
		copy(last[:], data)
		y = y.add(load(last[:])).mul(f)
	}
	return y
}
