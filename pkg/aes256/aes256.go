// Package aes256 is AES-256 (FIPS 197) and AES-256-GCM (NIST SP 800-38D) with every byte of key material in memory that the
// caller passes in. The standard library's aes leaves expanded keys on the Go heap, from where they get into dumps and
// swap; here schedules and GHASH keys lie where the key does, in pkg/secret, and go when it goes.
//
// Where the processor has instructions for AES, they expand keys and make keystream: no table is looked up, keystream goes from
// a register into the text and nowhere else, and no register holds anything secret after a call. During one, round keys pass
// through registers while a key is expanded, and the first step of a block of keystream adds a round key to a counter that is no
// secret; a signal right then saves it to the stack of the thread.
//
// Portable Go does the work elsewhere, and behind the tag purego. It looks up tables by secret bytes, so that someone who shares the
// processor's cache can learn from its timing, and what it holds in registers and on the stack for a moment is up to the compiler.
// So it is with GHASH, which is portable everywhere and looks up nothing: it takes the same steps whatever it hashes.
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
	// Size is the size of a Schedule.
	Size = int(unsafe.Sizeof(Schedule{}))

	rounds = 14
)

// A Schedule is the 15 round keys of one direction, in the order of use. It must lie at an address divisible by 64. Each round key
// is there four times in a row, so that instructions for one, two and four blocks at once read it as it is.
type Schedule [rounds + 1][4]roundKey

// A roundKey is four columns of the state, each with its first row in the low bits: on little-endian machines, the order of FIPS 197.
type roundKey [4]uint32

// Expand makes s the schedule that encrypts under key.
func (s *Schedule) Expand(key *[KeySize]byte) {
	if hardware {
		expandKey(s, &key[0])
		return
	}
	s.expandGeneric(key)
}

// Invert makes s the schedule that decrypts what enc encrypts, that of the equivalent inverse cipher (FIPS 197, 5.3.5).
func (s *Schedule) Invert(enc *Schedule) {
	if hardware {
		invertKey(s, enc)
		return
	}
	s.invertGeneric(enc)
}

// Fingerprint writes to dst the block encrypted, xor the block. Without the key nobody can tell which block it is of, nor try one;
// with the key a block can be tried, and a fingerprint still not be turned back (the construction of Matyas, Meyer and Oseas). A word
// of the block may stay in a register: where it is a secret, that is for secret.Do to clear.
func (s *Schedule) Fingerprint(dst, block *[BlockSize]byte) { s.counterMode(dst[:], block[:], block) }

// CheckMemory tells whether size bytes that begin with schedules can lie in mem.
func CheckMemory(mem []byte, size int) error {
	if len(mem) < size {
		return fmt.Errorf("aes256: %d bytes of memory for schedules of %d", len(mem), size)
	}
	if uintptr(unsafe.Pointer(unsafe.SliceData(mem)))%64 != 0 {
		return errors.New("aes256: the memory for schedules is not aligned to 64 bytes")
	}
	return nil
}

// InsecureMemory returns n bytes of the Go heap, aligned for schedules. It is for keys that are no secret: known answers.
//
//go:noinline
func InsecureMemory(n int) []byte {
	m := make([]byte, n+63)
	return m[-uintptr(unsafe.Pointer(&m[0]))&63:][:n:n]
}

// PartialOverlap tells whether x and y share memory without starting at the same byte.
func PartialOverlap(x, y []byte) bool {
	if len(x) == 0 || len(y) == 0 || &x[0] == &y[0] {
		return false
	}
	x0, y0 := uintptr(unsafe.Pointer(&x[0])), uintptr(unsafe.Pointer(&y[0]))
	return x0 < y0+uintptr(len(y)) && y0 < x0+uintptr(len(x))
}
