package aes256

import (
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"
)

const (
	// GCMSize is how much memory a GCM needs: a Block's, and 256 bytes for the table of multiples of H.
	GCMSize = Size + int(unsafe.Sizeof(hashTable{}))
	// NonceSize and Overhead are GCM's usual ones; no others are offered.
	NonceSize = 12
	Overhead  = 16

	maxText = (1<<32 - 2) * BlockSize // SP 800-38D, 5.2.1.1: the counter has 32 bits
)

// ErrOpen says that a ciphertext, its nonce or its associated data is not what was sealed under this key.
var ErrOpen = errors.New("aes256: the message does not authenticate")

// A GCM seals and opens messages. It may be used from many goroutines at once, not during Wipe.
type GCM struct {
	block Block
	table *hashTable
}

// NewGCM expands key into mem, which must have GCMSize bytes at an address divisible by 16 and stay alive as long as the GCM.
func NewGCM(mem, key []byte) (*GCM, error) {
	if err := checkMem(mem, GCMSize); err != nil {
		return nil, err
	}
	b, err := New(mem, key)
	if err != nil {
		return nil, err
	}
	g := &GCM{*b, (*hashTable)(unsafe.Pointer(&mem[Size]))}
	g.table.fill(element(b.EncryptColumns(0, 0, 0, 0)))
	return g, nil
}

// Seal encrypts plaintext into dst, followed by the tag. dst must have exactly Overhead bytes more than plaintext; it may start
// where plaintext does, and must not overlap it otherwise. Nothing is appended or allocated. A nonce must never be used twice.
func (g *GCM) Seal(dst, nonce, plaintext, aad []byte) error {
	if err := g.check(nonce, len(dst), len(plaintext)); err != nil {
		return fmt.Errorf("aes256: sealing: %w", err)
	}
	if PartialOverlap(dst, plaintext) {
		return errors.New("aes256: sealing: dst and plaintext overlap in part")
	}
	ciphertext := dst[:len(plaintext)]
	g.counterMode(ciphertext, plaintext, nonce)
	hi, lo := g.tag(nonce, ciphertext, aad)
	binary.BigEndian.PutUint64(dst[len(plaintext):], hi)
	binary.BigEndian.PutUint64(dst[len(plaintext)+8:], lo)
	return nil
}

// Open decrypts what Seal made into dst, which must have exactly Overhead bytes less than ciphertext and may start where it does.
// It writes nowhere else, so that a key goes straight into memory for keys; on any failure dst is zeroed.
func (g *GCM) Open(dst, nonce, ciphertext, aad []byte) error {
	err := g.open(dst, nonce, ciphertext, aad)
	if err != nil {
		clear(dst)
	}
	return err
}

func (g *GCM) open(dst, nonce, ciphertext, aad []byte) error {
	if err := g.check(nonce, len(ciphertext), len(dst)); err != nil {
		return fmt.Errorf("aes256: opening: %w", err)
	}
	if PartialOverlap(dst, ciphertext) {
		return errors.New("aes256: opening: dst and ciphertext overlap in part")
	}
	text, tag := ciphertext[:len(dst)], ciphertext[len(dst):]
	hi, lo := g.tag(nonce, text, aad)
	hi ^= binary.BigEndian.Uint64(tag)
	lo ^= binary.BigEndian.Uint64(tag[8:])
	diff := hi | lo
	if subtle.ConstantTimeEq(int32(diff|diff>>32), 0) != 1 {
		return ErrOpen
	}
	g.counterMode(dst, text, nonce)
	return nil
}

func (g *GCM) check(nonce []byte, sealed, text int) error {
	if len(nonce) != NonceSize {
		return fmt.Errorf("a nonce of %d bytes, not %d", len(nonce), NonceSize)
	}
	if sealed-Overhead != text {
		return fmt.Errorf("%d sealed bytes do not hold %d bytes of text and a tag of %d", sealed, text, Overhead)
	}
	if uint64(text) > maxText {
		return fmt.Errorf("a message of %d bytes, more than %d", text, uint64(maxText))
	}
	return nil
}

// counterMode is GCTR (SP 800-38D, 6.5); block 1 of the counter is the tag's, the text starts at 2.
func (g *GCM) counterMode(dst, src, nonce []byte) {
	for ctr := uint32(2); len(src) > 0; ctr++ {
		k0, k1, k2, k3 := g.keystream(nonce, ctr)
		if len(src) < BlockSize {
			xorTail(dst, src, k0, k1, k2, k3)
			return
		}
		s0, s1, s2, s3 := loadColumns(src)
		storeColumns(dst, s0^k0, s1^k1, s2^k2, s3^k3)
		dst, src = dst[BlockSize:], src[BlockSize:]
	}
}

func (g *GCM) keystream(nonce []byte, ctr uint32) (uint32, uint32, uint32, uint32) {
	n0, n1, n2 := binary.LittleEndian.Uint32(nonce), binary.LittleEndian.Uint32(nonce[4:]), binary.LittleEndian.Uint32(nonce[8:])
	return g.block.EncryptColumns(n0, n1, n2, swap(ctr))
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

// tag is T = GHASH(A, C, lengths) xor E(J0) (SP 800-38D, 7.1).
func (g *GCM) tag(nonce, ciphertext, aad []byte) (hi, lo uint64) {
	hi, lo = g.table.update(0, 0, aad)
	hi, lo = g.table.update(hi, lo, ciphertext)
	hi, lo = g.table.mul(hi^uint64(len(aad))*8, lo^uint64(len(ciphertext))*8)
	maskHi, maskLo := element(g.keystream(nonce, 1))
	return hi ^ maskHi, lo ^ maskLo
}

// Wipe zeroes the schedules and the table. Any use of g after it panics.
func (g *GCM) Wipe() {
	g.block.Wipe()
	if g.table != nil {
		*g.table = hashTable{}
		g.table = nil
	}
}
