package xts

import (
	"bytes"
	"crypto/aes"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	oracle "golang.org/x/crypto/xts"

	"nbdcrypt/pkg/aes256"
)

// A variant is one way of encrypting runs. Every one passes all tests of this file, with the portable code and x/crypto as oracles.
type variant struct {
	name             string
	encrypt, decrypt crypter
}

func variants() []variant {
	return []variant{
		{"Cipher", (*Cipher).Encrypt, (*Cipher).Decrypt},
		{"generic", encryptGeneric, decryptGeneric},
	}
}

func everyVariant(t *testing.T, f func(t *testing.T, x variant)) {
	for _, x := range variants() {
		t.Run(x.name, func(t *testing.T) { f(t, x) })
	}
}

// random returns n reproducible bytes.
func random(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func newCipher(t testing.TB, key []byte) *Cipher {
	t.Helper()
	c, err := New(aes256.InsecureMemory(Size), key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// model encrypts a run with x/crypto/xts, a sector at a time.
func model(t testing.TB, key, src []byte, sectorSize int, tweak uint64) []byte {
	t.Helper()
	c, err := oracle.NewCipher(aes.NewCipher, key)
	if err != nil {
		t.Fatal(err)
	}
	dst := make([]byte, len(src))
	for at := 0; at < len(src); at += sectorSize {
		c.Encrypt(dst[at:at+sectorSize], src[at:at+sectorSize], tweak+uint64(at/512))
	}
	return dst
}

// firstTweaks are where carries can go wrong in a run of n sectors.
func firstTweaks(n, sectorSize int) []uint64 {
	units := uint64(n * sectorSize / 512)
	return []uint64{0, 1<<32 - 1, 1<<32 - units, -units, -(units / 2)}
}

// guarded returns n bytes of memory with pages that fault right before and right after.
func guarded(t *testing.T, n int) []byte {
	t.Helper()
	page := syscall.Getpagesize()
	if n%page != 0 {
		t.Fatalf("%d bytes are not whole pages", n)
	}
	m, err := syscall.Mmap(-1, 0, n+2*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Munmap(m) })
	for _, guard := range [][]byte{m[:page], m[page+n:]} {
		if err := syscall.Mprotect(guard, syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	return m[page:][:n:n]
}

// bothWays checks a run in both directions, from src to dst and then in place. It leaves other bytes in src.
func bothWays(t *testing.T, x variant, c *Cipher, dst, src, plaintext, ciphertext []byte, sectorSize int, tweak uint64) {
	t.Helper()
	for _, d := range []struct {
		name      string
		crypt     crypter
		from, out []byte
	}{{"encrypt", x.encrypt, plaintext, ciphertext}, {"decrypt", x.decrypt, ciphertext, plaintext}} {
		copy(src, d.from)
		d.crypt(c, dst, src, sectorSize, tweak)
		if !bytes.Equal(dst, d.out) {
			t.Fatalf("%s: %d bytes in sectors of %d from %#x are wrong", d.name, len(src), sectorSize, tweak)
		}
		if !bytes.Equal(src, d.from) {
			t.Fatalf("%s: %d bytes in sectors of %d from %#x: src was written to", d.name, len(src), sectorSize, tweak)
		}
		d.crypt(c, src, src, sectorSize, tweak)
		if !bytes.Equal(src, d.out) {
			t.Fatalf("%s: %d bytes in sectors of %d from %#x in place are wrong", d.name, len(src), sectorSize, tweak)
		}
	}
}

// TestEveryRunLength has one buffer at the end of guarded memory and the other at the beginning, in turns, so that a kernel that
// reads or writes a byte too many on either side faults.
func TestEveryRunLength(t *testing.T) {
	key := random(1, KeySize)
	c, text := newCipher(t, key), random(2, 300*512)
	for _, s := range []struct{ sectorSize, most int }{{512, 300}, {4096, 37}} {
		size := (s.most*s.sectorSize + 4095) &^ 4095
		a, b := guarded(t, size), guarded(t, size)
		for n := 0; n <= s.most; n += thin {
			run := n * s.sectorSize
			for i, tweak := range firstTweaks(n, s.sectorSize) {
				dst, src := a[size-run:], b[:run]
				if (n+i)%2 == 0 {
					dst, src = a[:run], b[size-run:]
				}
				want := model(t, key, text[:run], s.sectorSize, tweak)
				everyVariant(t, func(t *testing.T, x variant) {
					bothWays(t, x, c, dst, src, text[:run], want, s.sectorSize, tweak)
				})
			}
		}
	}
}

// TestEveryAlignment also wants the bytes around dst left alone.
func TestEveryAlignment(t *testing.T) {
	const around = 64
	key := random(1, KeySize)
	c := newCipher(t, key)
	for _, s := range []struct{ sectorSize, n int }{{512, 3}, {4096, 1}} {
		sectorSize, run := s.sectorSize, s.n*s.sectorSize
		text := random(2, run)
		want := model(t, key, text, sectorSize, 7)
		everyVariant(t, func(t *testing.T, x variant) {
			for at := 0; at < around*around; at += thin {
				dst, src := random(3, run+2*around), make([]byte, run+around)
				before := bytes.Clone(dst)
				to := at % around
				bothWays(t, x, c, dst[to:][:run], src[at/around:][:run], text, want, sectorSize, 7)
				if !bytes.Equal(dst[:to], before[:to]) || !bytes.Equal(dst[to+run:], before[to+run:]) {
					t.Fatalf("dst at %d, src at %d: wrote outside dst", to, at/around)
				}
			}
		})
	}
}

// TestLongDst: what lies past the run's length in dst is not touched.
func TestLongDst(t *testing.T) {
	c := newCipher(t, random(1, KeySize))
	everyVariant(t, func(t *testing.T, x variant) {
		for _, crypt := range []crypter{x.encrypt, x.decrypt} {
			dst := random(2, 3*512)
			before := bytes.Clone(dst)
			crypt(c, dst, random(3, 512), 512, 0)
			if bytes.Equal(dst[:512], before[:512]) || !bytes.Equal(dst[512:], before[512:]) {
				t.Error("dst was not written, or past the run")
			}
		}
	})
}

func TestNoAllocations(t *testing.T) {
	c, buf := newCipher(t, random(1, KeySize)), make([]byte, 64<<10)
	everyVariant(t, func(t *testing.T, x variant) {
		for _, crypt := range []crypter{x.encrypt, x.decrypt} {
			if n := testing.AllocsPerRun(5, func() { crypt(c, buf, buf, 512, 1) }); n != 0 {
				t.Errorf("%v allocations", n)
			}
		}
	})
}

func FuzzAgainstOracle(f *testing.F) {
	for n := range 5 {
		f.Add(random(1, KeySize), random(2, n*4096), uint64(n), n%2 == 0)
	}
	f.Add(random(1, KeySize), random(2, 2*4096), ^uint64(0), true)
	f.Fuzz(func(t *testing.T, key, text []byte, tweak uint64, long bool) {
		sectorSize := 512
		if long {
			sectorSize = 4096
		}
		if len(key) != KeySize || bytes.Equal(key[:32], key[32:]) {
			if _, err := New(aes256.InsecureMemory(Size), key); err == nil {
				t.Fatalf("key %x was taken", key)
			}
			return
		}
		text = text[:len(text)/sectorSize*sectorSize]
		c, want := newCipher(t, key), model(t, key, text, sectorSize, tweak)
		for _, x := range variants() {
			bothWays(t, x, c, make([]byte, len(text)), make([]byte, len(text)), text, want, sectorSize, tweak)
		}
	})
}

func BenchmarkRun(b *testing.B) {
	c := newCipher(b, random(1, KeySize))
	for _, x := range variants() {
		for name, crypt := range map[string]crypter{"encrypt": x.encrypt, "decrypt": x.decrypt} {
			for _, sectorSize := range []int{512, 4096} {
				b.Run(fmt.Sprint(x.name, "/", name, "/", sectorSize), func(b *testing.B) {
					buf := make([]byte, 64<<10)
					b.SetBytes(int64(len(buf)))
					for b.Loop() {
						crypt(c, buf, buf, sectorSize, 1)
					}
				})
			}
		}
	}
}
