// Package xts is XTS-AES-256 (IEEE 1619-2007, NIST SP 800-38E) over runs of whole sectors, the way dm-crypt's
// aes-xts-plain64 numbers them: a sector's tweak is its byte offset divided by 512, for sectors of 4096 bytes as well.
//
// XTS hides what a sector holds and nothing more: it does not notice a sector that was changed, swapped or set back, and
// a sector that is written twice with the same content looks the same twice.
//
// Runs go through the fastest Implementation that the processor has instructions for, chosen once at start. Those made of
// assembly take a time that depends on the length alone, look up no tables, read round keys from memory where they lie, and
// clear the registers that they used. The portable one, for processors without such instructions and behind the tag purego,
// shares the timing limits of package aes256's portable code.
package xts

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"unsafe"

	"nbdcrypt/pkg/aes256"
)

const (
	// KeySize is the size of a key: the data key, then the tweak key.
	KeySize = 2 * aes256.KeySize
	// Size is how much memory a Cipher needs for its key schedules.
	Size = int(unsafe.Sizeof(schedules{}))
)

// schedules is what lies in the caller's memory; the assembly knows where in it each one is.
type schedules struct {
	enc, dec aes256.Schedule // of the data key
	tweak    aes256.Schedule // of the tweak key, which only ever encrypts
}

// A Cipher encrypts sectors under one key. It may be used from many goroutines at once, not during Wipe.
type Cipher struct {
	keys *schedules
}

// New expands key into mem, which must have Size bytes at an address divisible by 64 and stay alive as long as the Cipher. It
// refuses a key whose halves are equal (FIPS 140-3 IG C.I).
func New(mem, key []byte) (*Cipher, error) {
	if err := aes256.CheckMemory(mem, Size); err != nil {
		return nil, fmt.Errorf("xts: %w", err)
	}
	if len(key) != KeySize {
		return nil, fmt.Errorf("xts: a key of %d bytes, not %d", len(key), KeySize)
	}
	key1, key2 := key[:aes256.KeySize], key[aes256.KeySize:]
	if subtle.ConstantTimeCompare(key1, key2) == 1 {
		return nil, errors.New("xts: the two halves of the key are equal")
	}
	c := &Cipher{(*schedules)(unsafe.Pointer(unsafe.SliceData(mem)))}
	c.keys.enc.Expand((*[aes256.KeySize]byte)(key1))
	c.keys.dec.Invert(&c.keys.enc)
	c.keys.tweak.Expand((*[aes256.KeySize]byte)(key2))
	return c, nil
}

// Encrypt encrypts src, a run of sectors of 512 or 4096 bytes, into dst. tweak is the number of the first one in units of 512
// bytes; each next one's is sectorSize/512 higher, modulo 2⁶⁴. dst and src may start at the same byte, and must not overlap
// otherwise. It panics when the caller breaks these rules.
func (c *Cipher) Encrypt(dst, src []byte, sectorSize int, tweak uint64) {
	active.encrypt(c, dst, src, sectorSize, tweak)
}

// Decrypt is the inverse of Encrypt.
func (c *Cipher) Decrypt(dst, src []byte, sectorSize int, tweak uint64) {
	active.decrypt(c, dst, src, sectorSize, tweak)
}

// Wipe zeroes the schedules. Any use of c after it panics, rather than encrypt under schedules of zeros.
func (c *Cipher) Wipe() {
	if c.keys != nil {
		*c.keys = schedules{}
		c.keys = nil
	}
}
