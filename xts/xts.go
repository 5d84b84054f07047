// Package xts is XTS-AES-256 (IEEE 1619-2007, NIST SP 800-38E) over runs of whole sectors, the way dm-crypt's
// aes-xts-plain64 numbers them: a sector's tweak is its byte offset divided by 512, for sectors of 4096 bytes as well.
//
// XTS hides what a sector holds and nothing more: it does not notice a sector that was changed, swapped or set back, and
// a sector that is written twice with the same content looks the same twice. The portable code shares the timing limits of
// package aes256.
package xts

import (
	"crypto/subtle"
	"errors"
	"fmt"

	"nbdcrypt/pkg/aes256"
)

const (
	// KeySize is the size of a key: the data key, then the tweak key.
	KeySize = 2 * aes256.KeySize
	// Size is how much memory a Cipher needs for its key schedules.
	Size = 2 * aes256.Size
)

// A Cipher encrypts sectors under one key. It may be used from many goroutines at once, not during Wipe.
type Cipher struct {
	data, tweak *aes256.Block
}

// New expands key into mem, which must have Size bytes at an address divisible by 16 and stay alive as long as the Cipher. It
// refuses a key whose halves are equal (FIPS 140-3 IG C.I).
func New(mem, key []byte) (*Cipher, error) {
	if len(mem) < Size {
		return nil, fmt.Errorf("xts: %d bytes of memory for schedules of %d", len(mem), Size)
	}
	if len(key) != KeySize {
		return nil, fmt.Errorf("xts: a key of %d bytes, not %d", len(key), KeySize)
	}
	key1, key2 := key[:aes256.KeySize], key[aes256.KeySize:]
	if subtle.ConstantTimeCompare(key1, key2) == 1 {
		return nil, errors.New("xts: the two halves of the key are equal")
	}
	data, err := aes256.New(mem[:aes256.Size], key1)
	if err != nil {
		return nil, fmt.Errorf("xts: data key: %w", err)
	}
	tweak, err := aes256.New(mem[aes256.Size:], key2)
	if err != nil {
		return nil, fmt.Errorf("xts: tweak key: %w", err)
	}
	return &Cipher{data, tweak}, nil
}

// Encrypt encrypts src, a run of sectors of 512 or 4096 bytes, into dst. tweak is the number of the first one in units of 512
// bytes; each next one's is sectorSize/512 higher, modulo 2⁶⁴. dst and src may start at the same byte, and must not overlap
// otherwise. It panics when the caller breaks these rules.
func (c *Cipher) Encrypt(dst, src []byte, sectorSize int, tweak uint64) {
	check(dst, src, sectorSize)
	encrypt(c, dst, src, sectorSize, tweak)
}

// Decrypt is the inverse of Encrypt.
func (c *Cipher) Decrypt(dst, src []byte, sectorSize int, tweak uint64) {
	check(dst, src, sectorSize)
	decrypt(c, dst, src, sectorSize, tweak)
}

func check(dst, src []byte, sectorSize int) {
	switch {
	case sectorSize != 512 && sectorSize != 4096:
		panic("xts: sectors have 512 or 4096 bytes")
	case len(src)%sectorSize != 0:
		panic("xts: not whole sectors")
	case len(dst) < len(src):
		panic("xts: dst is shorter than src")
	case aes256.PartialOverlap(dst[:len(src)], src):
		panic("xts: dst and src overlap in part")
	}
}

// Wipe zeroes the schedules. Any use of c after it panics.
func (c *Cipher) Wipe() {
	c.data.Wipe()
	c.tweak.Wipe()
}
