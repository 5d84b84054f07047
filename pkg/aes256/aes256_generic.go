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

// expandGeneric is KeyExpansion (FIPS 197, 5.2).
func (s *Schedule) expandGeneric(key *[KeySize]byte) {
	k := &s[0][0]
	k[0], k[1], k[2], k[3] = loadColumns(key[:])
	k = &s[1][0]
	k[0], k[1], k[2], k[3] = loadColumns(key[BlockSize:])
	rcon := uint32(1)
	for r := 2; r <= rounds; r++ {
		t := s[r-1][0][3]
		if r%2 == 0 {
			t = subWord(bits.RotateLeft32(t, -8)) ^ rcon
			rcon <<= 1
		} else {
			t = subWord(t)
		}
		for c := range 4 {
			t ^= s[r-2][0][c]
			s[r][0][c] = t
		}
	}
	s.repeat()
}

// invertGeneric has all round keys but the first and the last go through InvMixColumns. Round keys are copied word by word, here and
// below: assigned as a whole, they would pass through the stack.
func (s *Schedule) invertGeneric(enc *Schedule) {
	for c := range 4 {
		s[0][0][c], s[rounds][0][c] = enc[rounds][0][c], enc[0][0][c]
		for r := 1; r < rounds; r++ {
			s[r][0][c] = invMixColumn(enc[rounds-r][0][c])
		}
	}
	s.repeat()
}

// repeat makes the other three copies of each round key.
func (s *Schedule) repeat() {
	for r := range s {
		for c := range 4 {
			w := s[r][0][c]
			s[r][1][c], s[r][2][c], s[r][3][c] = w, w, w
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

// EncryptColumns encrypts a block that is held in registers; for modes that combine blocks with something else on the way. It
// always is the portable code.
func (s *Schedule) EncryptColumns(s0, s1, s2, s3 uint32) (uint32, uint32, uint32, uint32) {
	t, k := &te, &s[0][0]
	s0, s1, s2, s3 = s0^k[0], s1^k[1], s2^k[2], s3^k[3]
	for r := 1; r < rounds; r++ {
		k := &s[r][0]
		t0 := t[0][byte(s0)] ^ t[1][byte(s1>>8)] ^ t[2][byte(s2>>16)] ^ t[3][s3>>24] ^ k[0]
		t1 := t[0][byte(s1)] ^ t[1][byte(s2>>8)] ^ t[2][byte(s3>>16)] ^ t[3][s0>>24] ^ k[1]
		t2 := t[0][byte(s2)] ^ t[1][byte(s3>>8)] ^ t[2][byte(s0>>16)] ^ t[3][s1>>24] ^ k[2]
		t3 := t[0][byte(s3)] ^ t[1][byte(s0>>8)] ^ t[2][byte(s1>>16)] ^ t[3][s2>>24] ^ k[3]
		s0, s1, s2, s3 = t0, t1, t2, t3
	}
	k = &s[rounds][0]
	return lastRound(&sbox, s0, s1, s2, s3) ^ k[0], lastRound(&sbox, s1, s2, s3, s0) ^ k[1],
		lastRound(&sbox, s2, s3, s0, s1) ^ k[2], lastRound(&sbox, s3, s0, s1, s2) ^ k[3]
}

// DecryptColumns is the inverse of EncryptColumns, with the inverted schedule; InvShiftRows takes its rows from the columns in the other order.
func (s *Schedule) DecryptColumns(s0, s1, s2, s3 uint32) (uint32, uint32, uint32, uint32) {
	t, k := &td, &s[0][0]
	s0, s1, s2, s3 = s0^k[0], s1^k[1], s2^k[2], s3^k[3]
	for r := 1; r < rounds; r++ {
		k := &s[r][0]
		t0 := t[0][byte(s0)] ^ t[1][byte(s3>>8)] ^ t[2][byte(s2>>16)] ^ t[3][s1>>24] ^ k[0]
		t1 := t[0][byte(s1)] ^ t[1][byte(s0>>8)] ^ t[2][byte(s3>>16)] ^ t[3][s2>>24] ^ k[1]
		t2 := t[0][byte(s2)] ^ t[1][byte(s1>>8)] ^ t[2][byte(s0>>16)] ^ t[3][s3>>24] ^ k[2]
		t3 := t[0][byte(s3)] ^ t[1][byte(s2>>8)] ^ t[2][byte(s1>>16)] ^ t[3][s0>>24] ^ k[3]
		s0, s1, s2, s3 = t0, t1, t2, t3
	}
	k = &s[rounds][0]
	return lastRound(&invSbox, s0, s3, s2, s1) ^ k[0], lastRound(&invSbox, s1, s0, s3, s2) ^ k[1],
		lastRound(&invSbox, s2, s1, s0, s3) ^ k[2], lastRound(&invSbox, s3, s2, s1, s0) ^ k[3]
}

// lastRound has no MixColumns: a column of the result is a box over four shifted bytes.
func lastRound(box *[256]byte, a, b, c, d uint32) uint32 {
	return uint32(box[byte(a)]) | uint32(box[byte(b>>8)])<<8 | uint32(box[byte(c>>16)])<<16 | uint32(box[d>>24])<<24
}

// xorKeystreamGeneric is GCTR (SP 800-38D, 6.5): it writes src xor keystream to dst, from the block that counter is on.
func (s *Schedule) xorKeystreamGeneric(dst, src []byte, counter *[BlockSize]byte) {
	c0, c1, c2, _ := loadColumns(counter[:])
	for n := binary.BigEndian.Uint32(counter[12:]); len(src) > 0; n++ {
		k0, k1, k2, k3 := s.EncryptColumns(c0, c1, c2, bits.ReverseBytes32(n))
		if len(src) < BlockSize {
			xorTail(dst, src, k0, k1, k2, k3)
			return
		}
		s0, s1, s2, s3 := loadColumns(src)
		storeColumns(dst, s0^k0, s1^k1, s2^k2, s3^k3)
		dst, src = dst[BlockSize:], src[BlockSize:]
	}
}

// xorTail handles the last block when it is short, without laying keystream on the stack.
func xorTail(dst, src []byte, k0, k1, k2, k3 uint32) {
	lo, hi := uint64(k0)|uint64(k1)<<32, uint64(k2)|uint64(k3)<<32
	for i, s := range src {
		if i == 8 {
			lo = hi
		}
		dst[i] = s ^ byte(lo)
		lo >>= 8
	}
}
