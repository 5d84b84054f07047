package aes256

import "encoding/binary"

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

// mul multiplies by the element in a block, by Horner's rule from the highest power of a down, modulo 1 + x + x² + x⁷ + x¹²⁸. It takes
// the same steps whatever the bits are. The block is GHASH's key: callers that held it as an element would have it on their stack.
//
//go:noinline
func (a element) mul(block *[BlockSize]byte) (z element) {
	b := load(block[:])
	for _, w := range [2]uint64{a.lo, a.hi} {
		for range 64 {
			carry, bit := -(z.lo & 1), -(w & 1)
			z.hi, z.lo = z.hi>>1^carry&(0xe1<<56)^bit&b.hi, z.lo>>1^z.hi<<63^bit&b.lo
			w >>= 1
		}
	}
	return z
}

// hash goes on with GHASH (SP 800-38D, 6.4) under the key h from y, over data filled up with zeros to whole blocks.
func (y element) hash(h *[BlockSize]byte, data []byte) element {
	for len(data) >= BlockSize {
		y = y.add(load(data)).mul(h)
		data = data[BlockSize:]
	}
	if len(data) > 0 {
		var last [BlockSize]byte
		copy(last[:], data)
		y = y.add(load(last[:])).mul(h)
	}
	return y
}
