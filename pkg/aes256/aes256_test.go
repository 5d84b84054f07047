package aes256

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"math/rand/v2"
	"reflect"
	"testing"
	"unsafe"
)

// random returns n reproducible bytes.
func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}).Read(b)
	return b
}

// everyPath runs f with the instructions of the processor, where this build and machine have them, and without.
func everyPath(t *testing.T, f func(t *testing.T)) {
	if hardware {
		t.Run("hardware", f)
		hardware = false
		defer func() { hardware = true }()
	}
	t.Run("generic", f)
}

// newSchedules returns the schedules of both directions and the standard library's cipher.
func newSchedules(t testing.TB, key []byte) (enc, dec *Schedule, oracle cipher.Block) {
	t.Helper()
	mem := InsecureMemory(2 * Size)
	enc, dec = (*Schedule)(unsafe.Pointer(&mem[0])), (*Schedule)(unsafe.Pointer(&mem[Size]))
	enc.Expand((*[KeySize]byte)(key))
	dec.Invert(enc)
	oracle, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	return enc, dec, oracle
}

func TestBlockEqualsStandardLibrary(t *testing.T) {
	everyPath(t, func(t *testing.T) {
		for seed := range uint64(3000) {
			data := random(seed, KeySize+BlockSize)
			enc, dec, oracle := newSchedules(t, data[:KeySize])
			src, want := data[KeySize:], make([]byte, BlockSize)
			oracle.Encrypt(want, src)
			if got := block(enc.EncryptColumns, src); !bytes.Equal(got, want) {
				t.Fatalf("seed %d: encrypted %x, want %x", seed, got, want)
			}
			oracle.Decrypt(want, src)
			if got := block(dec.DecryptColumns, src); !bytes.Equal(got, want) {
				t.Fatalf("seed %d: decrypted %x, want %x", seed, got, want)
			}
		}
	})
}

// TestScheduleLayout: instructions read round keys where the type says, so that its size, the copies and the order of bytes are fixed.
func TestScheduleLayout(t *testing.T) {
	if Size != 960 {
		t.Fatalf("Size = %d", Size)
	}
	key := random(1, KeySize)
	everyPath(t, func(t *testing.T) {
		enc, dec, _ := newSchedules(t, key)
		for r := range enc {
			for c := range enc[r] {
				if enc[r][c] != enc[r][0] || dec[r][c] != dec[r][0] {
					t.Errorf("copy %d of round key %d is another", c, r)
				}
			}
		}
		mem := unsafe.Slice((*byte)(unsafe.Pointer(enc)), Size)
		if !bytes.Equal(mem[:BlockSize], key[:BlockSize]) || !bytes.Equal(mem[64:][:BlockSize], key[BlockSize:]) {
			t.Error("the first round keys are not the key (FIPS 197, 5.2)")
		}
	})
}

// TestKeystreamEqualsStandardLibrary has every length, in place and not, and a counter that wraps round in its 32 bits, which
// crypto/cipher's would not. Nothing around dst may change.
func TestKeystreamEqualsStandardLibrary(t *testing.T) {
	var counter [BlockSize]byte
	copy(counter[:], random(2, BlockSize-4))
	copy(counter[12:], "\xff\xff\xff\xfb")
	everyPath(t, func(t *testing.T) {
		enc, _, oracle := newSchedules(t, random(1, KeySize))
		stream := make([]byte, 0, 208)
		for n := uint32(1<<32 - 5); len(stream) < cap(stream); n++ {
			c := counter
			binary.BigEndian.PutUint32(c[12:], n)
			oracle.Encrypt(c[:], c[:])
			stream = append(stream, c[:]...)
		}
		for n := range 201 {
			for _, at := range []int{0, 1, 15} {
				src, buf, c := random(3, n), random(4, n+32), counter
				want := bytes.Clone(buf)
				subtle.XORBytes(want[at:], src, stream[:n])
				enc.counterMode(buf[at:][:n], src, &c)
				if !bytes.Equal(buf, want) {
					t.Fatalf("%d bytes at %d: %x, want %x", n, at, buf, want)
				}
				enc.counterMode(src, src, &c)
				if !bytes.Equal(src, want[at:][:n]) {
					t.Fatalf("%d bytes in place: %x, want %x", n, src, want[at:][:n])
				}
				if c != counter {
					t.Fatal("the counter was written to")
				}
			}
		}
	})
}

func TestFingerprint(t *testing.T) {
	everyPath(t, func(t *testing.T) {
		for seed := range uint64(100) {
			enc, _, oracle := newSchedules(t, random(seed, KeySize))
			var got, block [BlockSize]byte
			copy(block[:], random(seed+1000, BlockSize))
			want := make([]byte, BlockSize)
			oracle.Encrypt(want, block[:])
			subtle.XORBytes(want, want, block[:])
			enc.Fingerprint(&got, &block)
			if !bytes.Equal(got[:], want) {
				t.Fatalf("seed %d: %x, want %x", seed, got, want)
			}
		}
	})
}

func TestNewGCMRefuses(t *testing.T) {
	mem := InsecureMemory(GCMSize + 32)
	for name, c := range map[string]struct{ mem, key []byte }{
		"short memory":     {mem[:GCMSize-1], make([]byte, KeySize)},
		"unaligned memory": {mem[32:], make([]byte, KeySize)},
		"short key":        {mem, make([]byte, KeySize-1)},
		"long key":         {mem, make([]byte, KeySize+1)},
		"no key":           {mem, nil},
		"no memory":        {nil, make([]byte, KeySize)},
	} {
		if _, err := NewGCM(c.mem, c.key); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if !bytes.Equal(mem, make([]byte, len(mem))) {
		t.Error("a key that was refused left something in the memory")
	}
}

func TestNoAllocations(t *testing.T) {
	everyPath(t, func(t *testing.T) {
		enc, dec, _ := newSchedules(t, random(1, KeySize))
		key := [KeySize]byte{1}
		if n := testing.AllocsPerRun(100, func() { enc.Expand(&key); dec.Invert(enc) }); n != 0 {
			t.Errorf("a key allocates %v times", n)
		}
		g, _ := newGCM(t, random(1, KeySize))
		nonce, text, sealed := make([]byte, NonceSize), make([]byte, 100), make([]byte, 100+Overhead)
		if n := testing.AllocsPerRun(100, func() { g.Seal(sealed, nonce, text, nonce); g.Open(text, nonce, sealed, nonce) }); n != 0 {
			t.Errorf("a message allocates %v times", n)
		}
	})
}

// TestRuleC19_EachWrongAnswerIsFound flips one digit of each published answer in turn.
func TestRuleC19_EachWrongAnswerIsFound(t *testing.T) {
	everyPath(t, func(t *testing.T) {
		if err := SelfTest(); err != nil {
			t.Fatal(err)
		}
	})
	fields := reflect.TypeFor[answers]()
	for i := range fields.NumField() {
		bad := []string{
			published.key, published.plaintext, published.ciphertext,
			published.gcmKey, published.nonce, published.text, published.aad, published.sealed, published.tag,
		}
		wrong := "0"
		if bad[i][5] == '0' {
			wrong = "1"
		}
		bad[i] = bad[i][:5] + wrong + bad[i][6:]
		a := answers{bad[0], bad[1], bad[2], bad[3], bad[4], bad[5], bad[6], bad[7], bad[8]}
		if a.testBlock() == nil && a.testGCM() == nil {
			t.Errorf("a wrong %s passes", fields.Field(i).Name)
		}
	}
}

func mustPanic(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s does not panic", what)
		}
	}()
	f()
}
