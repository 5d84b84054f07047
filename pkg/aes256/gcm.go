package aes256

import (
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"
)

const (
	// GCMSize is how much memory a GCM needs.
	GCMSize = int(unsafe.Sizeof(gcmKeys{}))
	// NonceSize and Overhead are GCM's usual ones; no others are offered.
	NonceSize = 12
	Overhead  = 16

	maxText = (1<<32 - 2) * BlockSize // SP 800-38D, 5.2.1.1: the counter has 32 bits
)

// ErrOpen says that a ciphertext, its nonce or its associated data is not what was sealed under this key.
var ErrOpen = errors.New("aes256: the message does not authenticate")

// gcmKeys is what lies in the caller's memory.
type gcmKeys struct {
	enc Schedule
	h   [BlockSize]byte // the key of GHASH, a block of zeros encrypted
	f   factor          // the same, for multiplying
}

// A GCM seals and opens messages. It may be used from many goroutines at once, not during Wipe.
type GCM struct {
	keys *gcmKeys
}

// NewGCM expands key into mem, which must have GCMSize bytes at an address divisible by 64 and stay alive as long as the GCM.
func NewGCM(mem, key []byte) (*GCM, error) {
	if err := CheckMemory(mem, GCMSize); err != nil {
		return nil, err
	}
	if len(key) != KeySize {
		return nil, fmt.Errorf("aes256: a key of %d bytes, not %d", len(key), KeySize)
	}
	g := &GCM{(*gcmKeys)(unsafe.Pointer(unsafe.SliceData(mem)))}
	g.keys.enc.Expand((*[KeySize]byte)(key))
	g.keys.h = [BlockSize]byte{}
	g.keys.enc.counterMode(g.keys.h[:], g.keys.h[:], new([BlockSize]byte))
	g.keys.f.set(&g.keys.h)
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
	g.keys.enc.counterMode(ciphertext, plaintext, counter(nonce, 2))
	g.tag(dst[len(plaintext):], nonce, ciphertext, aad)
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
	var want [Overhead]byte
	g.tag(want[:], nonce, text, aad)
	if subtle.ConstantTimeCompare(want[:], tag) != 1 {
		return ErrOpen
	}
	g.keys.enc.counterMode(dst, text, counter(nonce, 2))
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

// tag is T = GHASH(A, C, lengths) xor E(J0) (SP 800-38D, 7.1), where J0 is the counter on 1.
func (g *GCM) tag(dst, nonce, ciphertext, aad []byte) {
	f := &g.keys.f
	y := element{}.hash(f, aad).hash(f, ciphertext)
	y.add(element{uint64(len(aad)) * 8, uint64(len(ciphertext)) * 8}).mul(f).store(dst)
	g.keys.enc.counterMode(dst[:Overhead], dst[:Overhead], counter(nonce, 1))
}

// counter is the block that the keystream begins with: the tag's is number 1, the text starts at 2.
func counter(nonce []byte, n uint32) *[BlockSize]byte {
	c := new([BlockSize]byte)
	copy(c[:NonceSize], nonce)
	binary.BigEndian.PutUint32(c[NonceSize:], n)
	return c
}

// counterMode writes src xor keystream to dst, which is as long. Nothing else gets to hold keystream: that of a message
// on disk is as good as its text.
func (s *Schedule) counterMode(dst, src []byte, counter *[BlockSize]byte) {
	switch {
	case len(src) == 0:
	case hardware:
		xorKeystream(s, &dst[0], &src[0], len(src), counter)
	default:
		s.xorKeystreamGeneric(dst, src, counter)
	}
}

// Wipe zeroes the keys. Any use of g after it panics, rather than seal under a schedule of zeros.
func (g *GCM) Wipe() {
	if g.keys != nil {
		*g.keys = gcmKeys{}
		g.keys = nil
	}
}
