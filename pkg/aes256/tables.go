package aes256

import "math/bits"

// The tables are computed, which takes microseconds, from what FIPS 197 says of them; the known answers show that they are right.
var (
	sbox, invSbox = makeBoxes()
	te            = makeTable(&sbox, 0x03_01_01_02)    // MixColumns of SubBytes: 2, 1, 1, 3 down the column
	td            = makeTable(&invSbox, 0x0b_0d_09_0e) // InvMixColumns of InvSubBytes: 14, 9, 13, 11
)

// mul multiplies in GF(2⁸) modulo x⁸+x⁴+x³+x+1 (FIPS 197, 4.2).
func mul(a, b byte) byte {
	var p byte
	for ; b != 0; b >>= 1 {
		p ^= a & -(b & 1)
		a = a<<1 ^ 0x1b&-(a>>7)
	}
	return p
}

// makeBoxes computes the S-box (FIPS 197, 5.1.1): the inverse in the field, then an affine transformation. 3 generates the
// field's group, and its inverse is 0xf6, so that x and y below are inverse to each other all the way.
func makeBoxes() (box, inv [256]byte) {
	x, y := byte(1), byte(1)
	box[0] = 0x63
	for range 255 {
		s := y ^ bits.RotateLeft8(y, 1) ^ bits.RotateLeft8(y, 2) ^ bits.RotateLeft8(y, 3) ^ bits.RotateLeft8(y, 4)
		box[x] = s ^ 0x63
		x, y = mul(x, 3), mul(y, 0xf6)
	}
	for i, s := range box {
		inv[s] = byte(i)
	}
	return box, inv
}

// makeTable joins a box with the multiplication by a column of the mixing matrix; table r serves row r.
func makeTable(box *[256]byte, column uint32) (t [4][256]uint32) {
	for i, s := range box {
		var w uint32
		for row := range 4 {
			w |= uint32(mul(byte(column>>(8*row)), s)) << (8 * row)
		}
		for row := range 4 {
			t[row][i] = bits.RotateLeft32(w, 8*row)
		}
	}
	return t
}
