package aes256

import (
	"bytes"
	"crypto/cipher"
	"errors"
	"testing"
)

func newGCM(t testing.TB, key []byte) (*GCM, cipher.AEAD) {
	t.Helper()
	g, err := NewGCM(InsecureMemory(GCMSize), key)
	if err != nil {
		t.Fatal(err)
	}
	_, _, block := newSchedules(t, key)
	oracle, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return g, oracle
}

// checkGCM seals with both implementations and opens what the other one sealed.
func checkGCM(t *testing.T, key, nonce, text, aad []byte) {
	t.Helper()
	g, oracle := newGCM(t, key)
	got := make([]byte, len(text)+Overhead)
	if err := g.Seal(got, nonce, text, aad); err != nil {
		t.Fatal(err)
	}
	want := oracle.Seal(nil, nonce, text, aad)
	if !bytes.Equal(got, want) {
		t.Fatalf("text of %d, associated data of %d: sealed %x, want %x", len(text), len(aad), got, want)
	}
	opened := make([]byte, len(text))
	if err := g.Open(opened, nonce, want, aad); err != nil || !bytes.Equal(opened, text) {
		t.Fatalf("text of %d, associated data of %d: opened %x, %v", len(text), len(aad), opened, err)
	}
}

func TestGCMEqualsStandardLibrary(t *testing.T) {
	everyPath(t, func(t *testing.T) {
		for n := range 150 {
			for _, a := range []int{0, 1, 15, 16, 17, 100, n} {
				data := random(uint64(n*1000+a), KeySize+NonceSize+n+a)
				key, nonce, text := data[:KeySize], data[KeySize:KeySize+NonceSize], data[KeySize+NonceSize:]
				checkGCM(t, key, nonce, text[:n], text[n:])
			}
		}
		checkGCM(t, random(1, KeySize), random(2, NonceSize), random(3, 70_001), random(4, 5000))
	})
}

// TestGCMPublished has test cases 13 to 15 of McGrew and Viega; the self-test has number 16.
func TestGCMPublished(t *testing.T) {
	everyPath(t, func(t *testing.T) {
		const text = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525" +
			"b16aedf5aa0de657ba637b391aafd255"
		for _, c := range []struct{ key, nonce, text, sealed string }{
			{"", "000000000000000000000000", "", "530f8afbc74536b9a963b4f1c4cb738b"},
			{"", "000000000000000000000000", "00000000000000000000000000000000",
				"cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"},
			{published.gcmKey, published.nonce, text,
				"522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838" +
					"c5f61e6393ba7a0abcc9f662898015adb094dac5d93471bdec1a502270e3cc6c"},
		} {
			key := append(unhex(c.key), make([]byte, KeySize)...)[:KeySize]
			g, _ := newGCM(t, key)
			got := make([]byte, len(c.text)/2+Overhead)
			if err := g.Seal(got, unhex(c.nonce), unhex(c.text), nil); err != nil || !bytes.Equal(got, unhex(c.sealed)) {
				t.Errorf("sealed %x, %v, want %s", got, err, c.sealed)
			}
		}
	})
}

// TestGCMRefusesEveryFlippedBit flips each bit of what is opened, and wants dst wiped.
func TestGCMRefusesEveryFlippedBit(t *testing.T) {
	everyPath(t, func(t *testing.T) {
		g, _ := newGCM(t, random(1, KeySize))
		text := random(2, 20)
		message := map[string][]byte{"nonce": random(3, NonceSize), "sealed": make([]byte, len(text)+Overhead), "aad": random(4, 18)}
		if err := g.Seal(message["sealed"], message["nonce"], text, message["aad"]); err != nil {
			t.Fatal(err)
		}
		for name, part := range message {
			for bit := range len(part) * 8 {
				part[bit/8] ^= 1 << (bit % 8)
				dst := random(5, len(text))
				err := g.Open(dst, message["nonce"], message["sealed"], message["aad"])
				if !errors.Is(err, ErrOpen) || !bytes.Equal(dst, make([]byte, len(text))) {
					t.Errorf("bit %d of %s: %v, dst %x", bit, name, err, dst)
				}
				part[bit/8] ^= 1 << (bit % 8)
			}
		}
	})
}

func TestGCMInPlace(t *testing.T) {
	everyPath(t, func(t *testing.T) {
		g, oracle := newGCM(t, random(1, KeySize))
		nonce, buf := random(2, NonceSize), random(3, 100+Overhead)
		text := bytes.Clone(buf[:100])
		if err := g.Seal(buf, nonce, buf[:100], nil); err != nil || !bytes.Equal(buf, oracle.Seal(nil, nonce, text, nil)) {
			t.Fatalf("sealed in place: %x, %v", buf, err)
		}
		if err := g.Open(buf[:100], nonce, buf, nil); err != nil || !bytes.Equal(buf[:100], text) {
			t.Fatalf("opened in place: %x, %v", buf, err)
		}
	})
}

func TestGCMRefusesWrongSizes(t *testing.T) {
	g, _ := newGCM(t, random(1, KeySize))
	buf, other, nonce := make([]byte, 100), make([]byte, 100), make([]byte, NonceSize)
	for name, err := range map[string]error{
		"Seal, short dst":     g.Seal(buf[:20], nonce, other[:5], nil),
		"Seal, long dst":      g.Seal(buf[:22], nonce, other[:5], nil),
		"Seal, short nonce":   g.Seal(buf[:21], nonce[:11], other[:5], nil),
		"Seal, overlap":       g.Seal(buf[1:22], nonce, buf[:5], nil),
		"Open, no tag":        g.Open(nil, nonce, other[:15], nil),
		"Open, nothing":       g.Open(nil, nonce, nil, nil),
		"Open, short dst":     g.Open(buf[:4], nonce, other[:21], nil),
		"Open, empty nonce":   g.Open(buf[:5], nil, other[:21], nil),
		"Open, overlap":       g.Open(buf[1:6], nonce, buf[:21], nil),
		"Open, not a message": g.Open(buf[:5], nonce, other[:21], nil),
	} {
		if err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestGCMWipe(t *testing.T) {
	everyPath(t, func(t *testing.T) {
		mem := InsecureMemory(GCMSize)
		g, err := NewGCM(mem, random(1, KeySize))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(mem[Size:], make([]byte, GCMSize-Size)) {
			t.Error("the key of GHASH is not in the caller's memory")
		}
		g.Wipe()
		if !bytes.Equal(mem, make([]byte, GCMSize)) {
			t.Error("Wipe left something")
		}
		g.Wipe()
		mustPanic(t, "Seal after Wipe", func() { g.Seal(make([]byte, 16), make([]byte, 12), nil, nil) })
	})
}

func FuzzGCM(f *testing.F) {
	for n := range 5 {
		f.Add(random(1, KeySize), random(2, NonceSize), random(3, n*13), random(4, n*7))
	}
	f.Fuzz(func(t *testing.T, key, nonce, text, aad []byte) {
		if len(key) == KeySize && len(nonce) == NonceSize {
			everyPath(t, func(t *testing.T) { checkGCM(t, key, nonce, text, aad) })
		}
	})
}
