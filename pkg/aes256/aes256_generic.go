package aes256

import (
	"encoding/binary"
	"math/bits"
)

// The state is four columns in four words, little-endian: row r of column c is byte r of word c (FIPS 197, 3.4).

func loadColumns(b []byte) (s0, s1, s2, s3 uint32) {
	_ = b[15]
	return binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]),
		binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
}

func storeColumns(b []byte, s0, s1, s2, s3 uint32) {
	_ = b[15]
	binary.LittleEndian.PutUint32(b, s0)
	binary.LittleEndian.PutUint32(b[4:], s1)
	binary.LittleEndian.PutUint32(b[8:], s2)
	binary.LittleEndian.PutUint32(b[12:], s3)
}

// expand is KeyExpansion (FIPS 197, 5.2), in place. Round keys of the inverse cipher go through InvMixColumns, the first and the
// last excepted (5.3.5).
func (s *schedules) expand(key []byte) {
	s.enc[0][0], s.enc[0][1], s.enc[0][2], s.enc[0][3] = loadColumns(key)
	s.enc[1][0], s.enc[1][1], s.enc[1][2], s.enc[1][3] = loadColumns(key[16:])
	rcon := uint32(1)
	for r := 2; r <= rounds; r++ {
		t := s.enc[r-1][3]
		if r%2 == 0 {
			t = subWord(bits.RotateLeft32(t, -8)) ^ rcon
			rcon <<= 1
		} else {
			t = subWord(t)
		}
		for c := range 4 {
			t ^= s.enc[r-2][c]
			s.enc[r][c] = t
		}
	}
	s.dec[0], s.dec[rounds] = s.enc[rounds], s.enc[0]
	for r := 1; r < rounds; r++ {
		for c, w := range s.enc[rounds-r] {
			s.dec[r][c] = invMixColumn(w)
		}
	}
}

func subWord(w uint32) uint32 {
	return uint32(sbox[byte(w)]) | uint32(sbox[byte(w>>8)])<<8 | uint32(sbox[byte(w>>16)])<<16 | uint32(sbox[w>>24])<<24
}

// invMixColumn uses that the decryption tables hold InvMixColumns of InvSubBytes.
func invMixColumn(w uint32) uint32 {
	return td[0][sbox[byte(w)]] ^ td[1][sbox[byte(w>>8)]] ^ td[2][sbox[byte(w>>16)]] ^ td[3][sbox[w>>24]]
}

// EncryptColumns encrypts a block that is held in registers; for modes that combine blocks with something else on the way.
func (b *Block) EncryptColumns(s0, s1, s2, s3 uint32) (uint32, uint32, uint32, uint32) {
	keys, t := &b.s.enc, &te
	k := &keys[0]
	s0, s1, s2, s3 = s0^k[0], s1^k[1], s2^k[2], s3^k[3]
	for r := 1; r < rounds; r++ {
		k := &keys[r]
		t0 := t[0][byte(s0)] ^ t[1][byte(s1>>8)] ^ t[2][byte(s2>>16)] ^ t[3][s3>>24] ^ k[0]
		t1 := t[0][byte(s1)] ^ t[1][byte(s2>>8)] ^ t[2][byte(s3>>16)] ^ t[3][s0>>24] ^ k[1]
		t2 := t[0][byte(s2)] ^ t[1][byte(s3>>8)] ^ t[2][byte(s0>>16)] ^ t[3][s1>>24] ^ k[2]
		t3 := t[0][byte(s3)] ^ t[1][byte(s0>>8)] ^ t[2][byte(s1>>16)] ^ t[3][s2>>24] ^ k[3]
		s0, s1, s2, s3 = t0, t1, t2, t3
	}
	k = &keys[rounds]
	return lastRound(&sbox, s0, s1, s2, s3) ^ k[0], lastRound(&sbox, s1, s2, s3, s0) ^ k[1],
		lastRound(&sbox, s2, s3, s0, s1) ^ k[2], lastRound(&sbox, s3, s0, s1, s2) ^ k[3]
}

// DecryptColumns is the inverse of EncryptColumns; InvShiftRows takes its rows from the columns in the other order.
func (b *Block) DecryptColumns(s0, s1, s2, s3 uint32) (uint32, uint32, uint32, uint32) {
	keys, t := &b.s.dec, &td
	k := &keys[0]
	s0, s1, s2, s3 = s0^k[0], s1^k[1], s2^k[2], s3^k[3]
	for r := 1; r < rounds; r++ {
		k := &keys[r]
		t0 := t[0][byte(s0)] ^ t[1][byte(s3>>8)] ^ t[2][byte(s2>>16)] ^ t[3][s1>>24] ^ k[0]
		t1 := t[0][byte(s1)] ^ t[1][byte(s0>>8)] ^ t[2][byte(s3>>16)] ^ t[3][s2>>24] ^ k[1]
		t2 := t[0][byte(s2)] ^ t[1][byte(s1>>8)] ^ t[2][byte(s0>>16)] ^ t[3][s3>>24] ^ k[2]
		t3 := t[0][byte(s3)] ^ t[1][byte(s2>>8)] ^ t[2][byte(s1>>16)] ^ t[3][s0>>24] ^ k[3]
		s0, s1, s2, s3 = t0, t1, t2, t3
	}
	k = &keys[rounds]
	return lastRound(&invSbox, s0, s3, s2, s1) ^ k[0], lastRound(&invSbox, s1, s0, s3, s2) ^ k[1],
		lastRound(&invSbox, s2, s1, s0, s3) ^ k[2], lastRound(&invSbox, s3, s2, s1, s0) ^ k[3]
}

// lastRound has no MixColumns: a column of the result is a box over four shifted bytes.
func lastRound(box *[256]byte, a, b, c, d uint32) uint32 {
	return uint32(box[byte(a)]) | uint32(box[byte(b>>8)])<<8 | uint32(box[byte(c>>16)])<<16 | uint32(box[d>>24])<<24
}
