package xts

import (
	"encoding/binary"

	"nbdcrypt/pkg/aes256"
)

func encryptGeneric(keys *schedules, dst, src []byte, sectorSize int, tweak uint64) {
	for ; len(src) > 0; tweak += uint64(sectorSize / 512) {
		encryptUnit(keys, dst[:sectorSize], src[:sectorSize], tweak, 0)
		dst, src = dst[sectorSize:], src[sectorSize:]
	}
}

func decryptGeneric(keys *schedules, dst, src []byte, sectorSize int, tweak uint64) {
	for ; len(src) > 0; tweak += uint64(sectorSize / 512) {
		decryptUnit(keys, dst[:sectorSize], src[:sectorSize], tweak, 0)
		dst, src = dst[sectorSize:], src[sectorSize:]
	}
}

// encryptUnit encrypts one data unit of whole blocks (IEEE 1619, 5.3.2) whose number is the 128 bits lo, hi.
func encryptUnit(keys *schedules, dst, src []byte, lo, hi uint64) {
	lo, hi = firstMask(keys, lo, hi)
	for len(src) >= aes256.BlockSize && len(dst) >= aes256.BlockSize {
		a, b := binary.LittleEndian.Uint64(src)^lo, binary.LittleEndian.Uint64(src[8:])^hi
		s0, s1, s2, s3 := keys.enc.EncryptColumns(uint32(a), uint32(a>>32), uint32(b), uint32(b>>32))
		binary.LittleEndian.PutUint64(dst, (uint64(s0)|uint64(s1)<<32)^lo)
		binary.LittleEndian.PutUint64(dst[8:], (uint64(s2)|uint64(s3)<<32)^hi)
		lo, hi = nextMask(lo, hi)
		dst, src = dst[aes256.BlockSize:], src[aes256.BlockSize:]
	}
}

// decryptUnit is the inverse of encryptUnit (IEEE 1619, 5.4.2).
func decryptUnit(keys *schedules, dst, src []byte, lo, hi uint64) {
	lo, hi = firstMask(keys, lo, hi)
	for len(src) >= aes256.BlockSize && len(dst) >= aes256.BlockSize {
		a, b := binary.LittleEndian.Uint64(src)^lo, binary.LittleEndian.Uint64(src[8:])^hi
		s0, s1, s2, s3 := keys.dec.DecryptColumns(uint32(a), uint32(a>>32), uint32(b), uint32(b>>32))
		binary.LittleEndian.PutUint64(dst, (uint64(s0)|uint64(s1)<<32)^lo)
		binary.LittleEndian.PutUint64(dst[8:], (uint64(s2)|uint64(s3)<<32)^hi)
		lo, hi = nextMask(lo, hi)
		dst, src = dst[aes256.BlockSize:], src[aes256.BlockSize:]
	}
}

// firstMask encrypts a data unit's number, 16 bytes little-endian, under the tweak key.
func firstMask(keys *schedules, lo, hi uint64) (uint64, uint64) {
	s0, s1, s2, s3 := keys.tweak.EncryptColumns(uint32(lo), uint32(lo>>32), uint32(hi), uint32(hi>>32))
	return uint64(s0) | uint64(s1)<<32, uint64(s2) | uint64(s3)<<32
}

// nextMask multiplies by α in GF(2¹²⁸) (IEEE 1619, 5.2).
func nextMask(lo, hi uint64) (uint64, uint64) {
	return lo<<1 ^ reduction&-(hi>>63), hi<<1 | lo>>63
}
