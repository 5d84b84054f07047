// Package aes256 is AES-256 (FIPS 197) and AES-256-GCM (NIST SP 800-38D) with every byte of key material in memory that the
// caller passes in. The standard library's aes leaves expanded keys on the Go heap, from where they get into dumps and
// swap; here schedules and GHASH tables lie where the key does, in pkg/secret, and go when it goes.
//
// The schedule has the byte order of FIPS 197 on little-endian machines, so that hardware rounds can read it as it is.
//
// What it does not promise: this portable code looks up tables by secret bytes, and someone who shares the processor's
// cache can learn from its timing. Registers that hold round keys for a moment are out of its hands.
package aes256

import (
	"errors"
	"fmt"
	"unsafe"
)

const (
	// BlockSize is the size of an AES block.
	BlockSize = 16
	// KeySize is the size of a key.
	KeySize = 32
	// Size is how much memory a Block needs: both schedules of 240 bytes, rounded up to 64.
	Size = 512

	rounds = 14
)

// A roundKey is four columns of the state, each with its first row in the low bits.
type roundKey [4]uint32

// schedules is what lies in the caller's memory. dec is that of the equivalent inverse cipher (FIPS 197, 5.3.5), in the order
// of use.
type schedules struct {
	enc, dec [rounds + 1]roundKey
}

// A Block encrypts and decrypts single blocks. It may be used from many goroutines at once, not during Wipe.
type Block struct {
	s *schedules
}

// New expands key into mem, which must have Size bytes at an address divisible by 16 and stay alive as long as the Block.
func New(mem, key []byte) (*Block, error) {
	if err := checkMem(mem, Size); err != nil {
		return nil, err
	}
	if len(key) != KeySize {
		return nil, fmt.Errorf("aes256: a key of %d bytes, not %d", len(key), KeySize)
	}
	b := &Block{(*schedules)(unsafe.Pointer(unsafe.SliceData(mem)))}
	b.s.expand(key)
	return b, nil
}

func checkMem(mem []byte, size int) error {
	if len(mem) < size {
		return fmt.Errorf("aes256: %d bytes of memory for a schedule of %d", len(mem), size)
	}
	if uintptr(unsafe.Pointer(unsafe.SliceData(mem)))%16 != 0 {
		return errors.New("aes256: the memory for the schedule is not aligned to 16 bytes")
	}
	return nil
}

// Encrypt encrypts the first block of src into dst, which may be the same memory.
func (b *Block) Encrypt(dst, src []byte) {
	checkBlock(dst, src)
	s0, s1, s2, s3 := loadColumns(src)
	s0, s1, s2, s3 = b.EncryptColumns(s0, s1, s2, s3)
	storeColumns(dst, s0, s1, s2, s3)
}

// Decrypt decrypts the first block of src into dst, which may be the same memory.
func (b *Block) Decrypt(dst, src []byte) {
	checkBlock(dst, src)
	s0, s1, s2, s3 := loadColumns(src)
	s0, s1, s2, s3 = b.DecryptColumns(s0, s1, s2, s3)
	storeColumns(dst, s0, s1, s2, s3)
}

func checkBlock(dst, src []byte) {
	if len(src) < BlockSize || len(dst) < BlockSize {
		panic("aes256: less than a block")
	}
	if PartialOverlap(dst[:BlockSize], src[:BlockSize]) {
		panic("aes256: dst and src overlap in part")
	}
}

// Wipe zeroes the schedules. Any use of b after it panics, rather than encrypt under a schedule of zeros.
func (b *Block) Wipe() {
	if b.s != nil {
		*b.s = schedules{}
		b.s = nil
	}
}

// PartialOverlap tells whether x and y share memory without starting at the same byte.
func PartialOverlap(x, y []byte) bool {
	if len(x) == 0 || len(y) == 0 || &x[0] == &y[0] {
		return false
	}
	x0, y0 := uintptr(unsafe.Pointer(&x[0])), uintptr(unsafe.Pointer(&y[0]))
	return x0 < y0+uintptr(len(y)) && y0 < x0+uintptr(len(x))
}
