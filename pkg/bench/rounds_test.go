package bench

import (
	"bytes"
	"crypto/aes"
	"crypto/rand"
	"math/bits"
	"testing"
)

// xtime multiplies by x in the field of AES (FIPS 197, 4.2.1).
func xtime(b byte) byte { return b<<1 ^ 0x1b*(b>>7) }

// sbox is that of FIPS 197, 5.1.1, from its definition: the inverse, then the affine map.
func sbox(b byte) byte {
	inverse := byte(0)
	for c := 1; c < 256; c++ {
		product := byte(0)
		for x, y := b, byte(c); y > 0; x, y = xtime(x), y>>1 {
			product ^= x * (y & 1)
		}
		if product == 1 {
			inverse = byte(c)
		}
	}
	r := func(n int) byte { return bits.RotateLeft8(inverse, n) }
	return inverse ^ r(1) ^ r(2) ^ r(3) ^ r(4) ^ 0x63
}

// reference is AES from its definition, so that what the kernels do is held against more than themselves.
type reference [256]byte

func newReference() *reference {
	var s reference
	for b := range s {
		s[b] = sbox(byte(b))
	}
	return &s
}

// round is a round of the cipher (FIPS 197, 5.1) on a block.
func (s *reference) round(block, key []byte, last bool) {
	var shifted [16]byte
	for i := range shifted {
		shifted[i] = s[block[(i+4*(i%4))%16]]
	}
	for i := range shifted {
		column := shifted[i&^3 : i&^3+4]
		a, b, c, d := column[i%4], column[(i+1)%4], column[(i+2)%4], column[(i+3)%4]
		if block[i] = a; !last {
			block[i] = xtime(a) ^ xtime(b) ^ b ^ c ^ d
		}
		block[i] ^= key[i]
	}
}

// rounds14 are the rounds of AES-256, with the key that keys returns for each.
func (s *reference) rounds14(block []byte, keys func(round int) []byte) {
	for round := 1; round <= 14; round++ {
		s.round(block, keys(round), round == 14)
	}
}

// expand is the key expansion (FIPS 197, 5.2).
func (s *reference) expand(key []byte) []byte {
	w, rcon := bytes.Clone(key), byte(1)
	for i := 32; i < 15*16; i += 4 {
		t := bytes.Clone(w[i-4:])
		if i%32 == 0 {
			t = []byte{s[t[1]] ^ rcon, s[t[2]], s[t[3]], s[t[0]]}
			rcon = xtime(rcon)
		} else if i%32 == 16 {
			t = []byte{s[t[0]], s[t[1]], s[t[2]], s[t[3]]}
		}
		for j := range t {
			w = append(w, t[j]^w[i-32+j])
		}
	}
	return w
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// TestReference: the rounds that the kernels are compared with are those of crypto/aes.
func TestReference(t *testing.T) {
	s, key, block := newReference(), random(32), random(16)
	standard, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 16)
	standard.Encrypt(want, block)
	schedule := s.expand(key)
	for i := range block {
		block[i] ^= schedule[i]
	}
	s.rounds14(block, func(round int) []byte { return schedule[round*16 : round*16+16] })
	if !bytes.Equal(block, want) {
		t.Errorf("%x, crypto/aes says %x", block, want)
	}
}

// TestRounds: the kernels do all rounds of all times on every block of every register, and write nowhere else.
func TestRounds(t *testing.T) {
	s := newReference()
	for _, r := range allRegisters() {
		for _, n := range []int{1, 2, 7} {
			size, key := chains*r.bits/8, random(16)
			got := random(16 + size + 16)
			want := bytes.Clone(got)
			for at := 16; at < 16+size; at += 16 {
				for range n {
					s.rounds14(want[at:at+16], func(int) []byte { return key })
				}
			}
			if r.rounds(&got[16], &key[0], n); !bytes.Equal(got, want) {
				t.Errorf("%d bits, %d times: %x, want %x", r.bits, n, got, want)
			}
		}
	}
}

// TestWidths: there is a ceiling where there is an implementation besides the portable one; the widest is first, and a task's bytes are what its state holds.
func TestWidths(t *testing.T) {
	if (len(widths()) == 0) != (len(Implementations()) == 1) {
		t.Errorf("%d widths for %q", len(widths()), Implementations())
	}
	before := 1 << 20
	for _, w := range widths() {
		if w.bits >= before || w.size != chains*w.bits/8 {
			t.Errorf("%d bits after %d, %d bytes", w.bits, before, w.size)
		}
		before = w.bits
		w.run(0) // comes back
	}
}
