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

// everyImplementation passes all tests of this file, with x/crypto as the oracle.
func everyImplementation(t *testing.T, f func(t *testing.T, i Implementation)) {
	for _, i := range Implementations() {
		t.Run(i.String(), func(t *testing.T) { f(t, i) })
	}
}

// thin leaves out most cases of the long tests, all but the first 40 and every 97th, where all would take minutes: for the portable code,
// to which cases hardly differ, and in short runs, which are what an emulated processor has time for.
func thin(i Implementation, n int) bool {
	return (i == generic || testing.Short()) && n > 40 && n%97 != 0
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

// A run is what the oracle made of a run of sectors.
type run struct {
	sectorSize            int
	tweak                 uint64
	plaintext, ciphertext []byte
}

// sectors is a part of r.
func (r run) sectors(first, n int) run {
	from, to := first*r.sectorSize, (first+n)*r.sectorSize
	return run{r.sectorSize, r.tweak + uint64(from/512), r.plaintext[from:to], r.ciphertext[from:to]}
}

// check checks i in both directions, from src to dst and then in place. It leaves other bytes in src.
func (r run) check(t *testing.T, i Implementation, c *Cipher, dst, src []byte) {
	t.Helper()
	for _, d := range []struct {
		name      string
		crypt     crypter
		from, out []byte
	}{{"encrypt", i.Encrypt, r.plaintext, r.ciphertext}, {"decrypt", i.Decrypt, r.ciphertext, r.plaintext}} {
		copy(src, d.from)
		d.crypt(c, dst, src, r.sectorSize, r.tweak)
		if !bytes.Equal(dst, d.out) {
			t.Fatalf("%s %s: %d bytes in sectors of %d from %#x are wrong", i, d.name, len(src), r.sectorSize, r.tweak)
		}
		if !bytes.Equal(src, d.from) {
			t.Fatalf("%s %s: %d bytes in sectors of %d from %#x: src was written to", i, d.name, len(src), r.sectorSize, r.tweak)
		}
		d.crypt(c, src, src, r.sectorSize, r.tweak)
		if !bytes.Equal(src, d.out) {
			t.Fatalf("%s %s: %d bytes in sectors of %d from %#x in place are wrong", i, d.name, len(src), r.sectorSize, r.tweak)
		}
	}
}

// TestEveryRunLength has runs round each number where a carry can go wrong: that end right before it, that have it in the middle,
// that begin one sector before, and that begin right there. The number 0, where 2⁶⁴ would come, is one of them. The oracle sees each
// sector once, as every run is a part of one long one.
//
// One buffer lies at the end of guarded memory and the other at the beginning, in turns, so that a kernel that reads or writes
// a byte too many on either side faults.
func TestEveryRunLength(t *testing.T) {
	key := random(1, KeySize)
	c := newCipher(t, key)
	for _, sectorSize := range []int{512, 4096} {
		size := (most*sectorSize + 4095) &^ 4095
		a, b, text := guarded(t, size), guarded(t, size), random(2, 2*most*sectorSize)
		for _, carry := range []uint64{0, 1 << 32, 1<<32 - 1} {
			first := carry - uint64(most*sectorSize/512)
			all := run{sectorSize, first, text, model(t, key, text, sectorSize, first)}
			everyImplementation(t, func(t *testing.T, i Implementation) {
				for n := 1; n <= most; n++ {
					if thin(i, n) {
						continue
					}
					for turn, at := range []int{most - n, most - n/2, most - 1, most} {
						part := n * sectorSize
						dst, src := a[:part], b[size-part:]
						if (n+turn)%2 == 0 {
							dst, src = a[size-part:], b[:part]
						}
						all.sectors(at, n).check(t, i, c, dst, src)
					}
				}
			})
		}
	}
}

// TestEveryAlignment also wants the bytes around dst left alone.
func TestEveryAlignment(t *testing.T) {
	const around = 64
	key := random(1, KeySize)
	c := newCipher(t, key)
	for _, s := range []struct{ sectorSize, n int }{{512, 1}, {512, 21}, {4096, 3}} {
		size := s.n * s.sectorSize
		text := random(2, size)
		r := run{s.sectorSize, 7, text, model(t, key, text, s.sectorSize, 7)}
		everyImplementation(t, func(t *testing.T, i Implementation) {
			for at := range around * around {
				if thin(i, at) {
					continue
				}
				dst, src := random(3, size+2*around), make([]byte, size+around)
				before := bytes.Clone(dst)
				to := at % around
				r.check(t, i, c, dst[to:][:size], src[at/around:][:size])
				if !bytes.Equal(dst[:to], before[:to]) || !bytes.Equal(dst[to+size:], before[to+size:]) {
					t.Fatalf("dst at %d, src at %d: wrote outside dst", to, at/around)
				}
			}
		})
	}
}

// TestLongDst: what lies past the run's length in dst is not touched.
func TestLongDst(t *testing.T) {
	c := newCipher(t, random(1, KeySize))
	everyImplementation(t, func(t *testing.T, i Implementation) {
		for _, crypt := range []crypter{i.Encrypt, i.Decrypt, (*Cipher).Encrypt, (*Cipher).Decrypt} {
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
	everyImplementation(t, func(t *testing.T, i Implementation) {
		for _, crypt := range []crypter{i.Encrypt, i.Decrypt, (*Cipher).Encrypt, (*Cipher).Decrypt} {
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
		c, r := newCipher(t, key), run{sectorSize, tweak, text, model(t, key, text, sectorSize, tweak)}
		for _, i := range Implementations() {
			r.check(t, i, c, make([]byte, len(text)), make([]byte, len(text)))
		}
	})
}

func BenchmarkRun(b *testing.B) {
	c := newCipher(b, random(1, KeySize))
	for _, i := range Implementations() {
		for name, crypt := range map[string]crypter{"encrypt": i.Encrypt, "decrypt": i.Decrypt} {
			for _, sectorSize := range []int{512, 4096} {
				b.Run(fmt.Sprint(i, "/", name, "/", sectorSize), func(b *testing.B) {
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
