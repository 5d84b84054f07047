package keystore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"unsafe"

	"nbdcrypt/pkg/secret"
)

// HKDF-SHA256 (RFC 5869) whose whole state lies in secret memory. The standard library's leaves the keys that go in,
// and those derived from them, in hash states on the heap. What the compiler spills to the stack while a block is hashed,
// words of that state, is why everything here is called inside secret.Do.

const (
	shaSize  = 32
	shaBlock = 64
)

// deriving is why the state of a derivation, and what it gave, are in memory.
var deriving = secret.Purpose{Kind: "derived", For: "one derivation, wrap or unwrap"}

// hkdfState is everything that a derivation touches.
type hkdfState struct {
	state  [8]uint32
	keyed  [2][8]uint32 // the state once HMAC's key is taken in, of the inner hash and of the outer
	words  [64]uint32
	block  [shaBlock]byte
	filled int
	length uint64
	inner  [shaSize]byte
	prk    [shaSize]byte
	okm    [shaSize]byte
}

const hkdfSize = int(unsafe.Sizeof(hkdfState{}))

// hashState lays the state of a hash or derivation over mem, which has hkdfSize bytes.
func hashState(mem []byte) *hkdfState {
	_ = mem[hkdfSize-1]
	return (*hkdfState)(unsafe.Pointer(unsafe.SliceData(mem)))
}

// material is what wrapping keys are derived from: a key and a salt, or what HKDF has extracted from the two.
type material struct {
	key, salt []byte
	extracted bool
}

// derive fills dst, of at most one hash, with HKDF of m and info.
func (h *hkdfState) derive(dst []byte, m material, info identity) error {
	if err := h.take(m); err != nil {
		return err
	}
	return h.expand(dst, info)
}

// take takes m in, for any number of calls of expand.
func (h *hkdfState) take(m material) error {
	if len(m.salt) > shaBlock {
		return errors.New("keystore: derive: a salt that is longer than a block")
	}
	prk := m.key
	if !m.extracted {
		h.extract(h.prk[:], m)
		prk = h.prk[:]
	}
	h.setKey(prk)
	return nil
}

// extract is HKDF's first step, the same for every info.
func (h *hkdfState) extract(dst []byte, m material) { h.mac(dst, m.salt, m.key, nil) }

// expand is its second.
func (h *hkdfState) expand(dst []byte, info identity) error {
	if len(dst) > shaSize {
		return errors.New("keystore: derive: more than one hash")
	}
	h.keyedMAC(h.okm[:], info, []byte{1})
	move(dst, h.okm[:])
	return nil
}

// withHash runs fn on the state of a hash, and wipes it. What is secret is hashed inside secret.Do.
func withHash(fn func(*hkdfState) error) error {
	mem, err := secret.Work(hkdfSize, deriving)
	if err != nil {
		return fmt.Errorf("keystore: %w", err)
	}
	defer mem.Destroy()
	return fn(hashState(mem.Bytes()))
}

// mac is HMAC (RFC 2104) over a and b under a key of at most a block.
func (h *hkdfState) mac(out, key, a, b []byte) {
	h.setKey(key)
	h.keyedMAC(out, a, b)
}

// setKey hashes the key's blocks, which every HMAC under it starts with.
func (h *hkdfState) setKey(key []byte) {
	for i, with := range [2]byte{0x36, 0x5c} {
		h.state = shaInitial
		for n := range h.block {
			h.block[n] = with
		}
		for n, k := range key {
			h.block[n] ^= k
		}
		h.compress()
		h.moveState(&h.keyed[i], &h.state)
	}
}

func (h *hkdfState) keyedMAC(out, a, b []byte) {
	h.resume(0)
	h.write(a)
	h.write(b)
	h.sum(h.inner[:])
	h.resume(1)
	h.write(h.inner[:])
	h.sum(out)
}

// resume starts a hash where the key's block is taken in.
func (h *hkdfState) resume(which int) {
	h.moveState(&h.state, &h.keyed[which])
	h.filled, h.length = 0, shaBlock
}

// moveState is move for words.
func (h *hkdfState) moveState(dst, src *[8]uint32) {
	for i := range src {
		dst[i] = src[i]
	}
}

// shaInitial is what a hash starts with (FIPS 180-4, 5.3.3).
var shaInitial = [8]uint32{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}

// begin starts a hash.
func (h *hkdfState) begin() {
	h.state = shaInitial
	h.filled, h.length = 0, 0
}

func (h *hkdfState) write(p []byte) {
	h.length += uint64(len(p))
	for len(p) > 0 {
		n := move(h.block[h.filled:], p)
		p = p[n:]
		if h.filled += n; h.filled == shaBlock {
			h.compress()
			h.filled = 0
		}
	}
}

// move is copy for what is secret: byte by byte. Copy takes vector registers, where keys would lie until something else does.
func move(dst, src []byte) int {
	n := min(len(dst), len(src))
	for i := range n {
		dst[i] = src[i]
	}
	return n
}

// sum ends a hash with its padding (5.1.1).
func (h *hkdfState) sum(out []byte) {
	length := h.length * 8
	h.write([]byte{0x80})
	if h.filled > shaBlock-8 {
		clear(h.block[h.filled:])
		h.compress()
		h.filled = 0
	}
	clear(h.block[h.filled:])
	binary.BigEndian.PutUint64(h.block[shaBlock-8:], length)
	h.compress()
	for i, w := range &h.state { // not over h.state, which would copy the hash to the stack, as a whole
		binary.BigEndian.PutUint32(out[4*i:], w)
	}
}

// compress takes in h.block (6.2.2).
func (h *hkdfState) compress() {
	for i := range 16 {
		h.words[i] = binary.BigEndian.Uint32(h.block[4*i:])
	}
	for i := 16; i < 64; i++ {
		x, y := h.words[i-15], h.words[i-2]
		s0 := bits.RotateLeft32(x, -7) ^ bits.RotateLeft32(x, -18) ^ x>>3
		s1 := bits.RotateLeft32(y, -17) ^ bits.RotateLeft32(y, -19) ^ y>>10
		h.words[i] = h.words[i-16] + s0 + h.words[i-7] + s1
	}
	s := &h.state
	a, b, c, d, e, f, g, i := s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]
	for n, w := range &h.words {
		s1 := bits.RotateLeft32(e, -6) ^ bits.RotateLeft32(e, -11) ^ bits.RotateLeft32(e, -25)
		t1 := i + s1 + (e&f ^ ^e&g) + shaK[n] + w
		s0 := bits.RotateLeft32(a, -2) ^ bits.RotateLeft32(a, -13) ^ bits.RotateLeft32(a, -22)
		t2 := s0 + (a&b ^ a&c ^ b&c)
		a, b, c, d, e, f, g, i = t1+t2, a, b, c, d+t1, e, f, g
	}
	s[0], s[1], s[2], s[3] = s[0]+a, s[1]+b, s[2]+c, s[3]+d
	s[4], s[5], s[6], s[7] = s[4]+e, s[5]+f, s[6]+g, s[7]+i
}

// shaK are the constants of FIPS 180-4, 4.2.2.
var shaK = [64]uint32{
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
}
