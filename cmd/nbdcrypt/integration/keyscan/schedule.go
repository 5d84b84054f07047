package keyscan

import (
	"encoding/binary"
	"math/bits"
)

// The AES-256 key schedule (FIPS 197, 5.2 and 5.3.5), written a third time: what the tests look for must not come from the code
// that they test. Everything is made from the definitions, and nothing is fast.

const (
	keySize    = 32
	pieceSize  = 16
	roundKeys  = 15
	polynomial = 0x1b
)

// double multiplies by x in GF(2⁸).
func double(a byte) byte {
	if a&0x80 != 0 {
		return a<<1 ^ polynomial
	}
	return a << 1
}

func multiply(a, b byte) (product byte) {
	for ; b != 0; b >>= 1 {
		if b&1 != 0 {
			product ^= a
		}
		a = double(a)
	}
	return product
}

// sbox is the inverse in GF(2⁸), then the affine map (5.1.1).
var sbox = func() (box [256]byte) {
	for x := range 256 {
		inverse := byte(1)
		for range 254 {
			inverse = multiply(inverse, byte(x))
		}
		box[x] = inverse ^ bits.RotateLeft8(inverse, 1) ^ bits.RotateLeft8(inverse, 2) ^
			bits.RotateLeft8(inverse, 3) ^ bits.RotateLeft8(inverse, 4) ^ 0x63
	}
	return box
}()

type piece = [pieceSize]byte

// expand gives the round keys that encrypt, as bytes in the order of the standard.
func expand(key []byte) (schedule [roundKeys]piece) {
	var words [4 * roundKeys]uint32
	for i := range words[:8] {
		words[i] = binary.BigEndian.Uint32(key[4*i:])
	}
	rcon := byte(1)
	for i := 8; i < len(words); i++ {
		t := words[i-1]
		switch i % 8 {
		case 0:
			t = subWord(bits.RotateLeft32(t, 8)) ^ uint32(rcon)<<24
			rcon = double(rcon)
		case 4:
			t = subWord(t)
		}
		words[i] = words[i-8] ^ t
	}
	for i, w := range words {
		binary.BigEndian.PutUint32(schedule[i/4][i%4*4:], w)
	}
	return schedule
}

func subWord(w uint32) uint32 {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], w)
	for i := range b {
		b[i] = sbox[b[i]]
	}
	return binary.BigEndian.Uint32(b[:])
}

// invert gives the round keys of the equivalent inverse cipher; the first and the last are those that encrypt.
func invert(enc [roundKeys]piece) (dec [roundKeys]piece) {
	dec[0], dec[roundKeys-1] = enc[roundKeys-1], enc[0]
	for r := 1; r < roundKeys-1; r++ {
		for c := 0; c < pieceSize; c += 4 {
			column := enc[roundKeys-1-r][c:][:4]
			for row := range 4 {
				for i, factor := range [4]byte{14, 11, 13, 9} {
					dec[r][c+row] ^= multiply(column[(row+i)%4], factor)
				}
			}
		}
	}
	return dec
}
