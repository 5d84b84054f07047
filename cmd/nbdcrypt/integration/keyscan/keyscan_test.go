package keyscan

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"
)

// noise returns n reproducible bytes.
func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// TestSchedule has the round keys that FIPS 197 prints, in A.3 and C.3.
func TestSchedule(t *testing.T) {
	for _, c := range []struct {
		key       string
		inverse   bool
		roundKeys map[int]string
	}{
		{"603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", false, map[int]string{
			0: "603deb1015ca71be2b73aef0857d7781", 2: "9ba354118e6925afa51a8b5f2067fcde", 14: "fe4890d1e6188d0b046df344706c631e"}},
		{"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", true, map[int]string{
			0: "24fc79ccbf0979e9371ac23c6d68de36", 1: "34f1d1ffbfceaa2ffce9e25f2558016e", 14: "000102030405060708090a0b0c0d0e0f"}},
	} {
		key, err := hex.DecodeString(c.key)
		if err != nil {
			t.Fatal(err)
		}
		schedule := expand(key)
		if c.inverse {
			schedule = invert(schedule)
		}
		for r, want := range c.roundKeys {
			if got := hex.EncodeToString(schedule[r][:]); got != want {
				t.Errorf("round key %d is %s, not %s", r, got, want)
			}
		}
	}
}

// written is every way of writing a key that must be found.
func written(key []byte) map[string][]byte {
	ways := map[string][]byte{"raw": key}
	for name, half := range map[string][]byte{"data": key[:32], "tweak": key[32:]} {
		enc := expand(half)
		dec := invert(enc)
		for r := range enc {
			ways[name+" enc"+string(rune('a'+r))] = enc[r][:]
			ways[name+" dec"+string(rune('a'+r))] = dec[r][:]
		}
		for i, p := range enc[:2] {
			ways[name+" swapped"+string(rune('a'+i))] = swap(p[:])
			ways[name+" last swapped"+string(rune('a'+i))] = swap(dec[i+1][:])
		}
	}
	ways["hex"] = []byte(hex.EncodeToString(key))
	ways["HEX"] = []byte(strings.ToUpper(hex.EncodeToString(key)))
	for shift := range 3 {
		text := base64.StdEncoding.EncodeToString(append(make([]byte, shift), key...))
		ways["base64 "+string(rune('0'+shift))] = []byte(text)[4:]
		ways["base64url "+string(rune('0'+shift))] = []byte(base64.RawURLEncoding.EncodeToString(append(make([]byte, shift), key...)))[4:]
	}
	return ways
}

func swap(p []byte) []byte {
	q := bytes.Clone(p)
	for i := 0; i < len(q); i += 4 {
		q[i], q[i+1], q[i+2], q[i+3] = q[i+3], q[i+2], q[i+1], q[i]
	}
	return q
}

// TestFinds plants each way of writing a key at every offset of a word, among noise and among zeros, at the end too.
func TestFinds(t *testing.T) {
	key := noise(1, 64)
	s := New()
	s.Key("other", noise(2, 64))
	s.Key("key", key)
	for what, planted := range written(key) {
		for shift := range 9 {
			for _, around := range [][]byte{noise(3, 4000), make([]byte, 4000)} {
				blob := append(bytes.Clone(around[:1000+shift]), planted...)
				for _, blob := range [][]byte{blob, append(bytes.Clone(blob), around...)} {
					hits := s.Scan(blob)
					if len(hits) == 0 || hits[0].Half() || !strings.HasPrefix(hits[0].Secret, "key") {
						t.Fatalf("%s at %d: %v", what, shift, hits)
					}
				}
			}
		}
	}
}

func TestTellsWhereAndHowMuch(t *testing.T) {
	key := noise(1, 32)
	s := New()
	s.Key("key", key)
	round := expand(key)[7]
	blob := noise(2, 1<<20)
	copy(blob[5000:], round[:])
	copy(blob[7001:], round[8:])
	copy(blob[9003:], round[:8])
	want := []Hit{{5000, "key", "encryption round key 7", 16}, {7001, "key", "encryption round key 7, second half", 8},
		{9003, "key", "encryption round key 7", 8}}
	hits := s.Scan(blob)
	if len(hits) != len(want) {
		t.Fatal(hits)
	}
	for i, h := range hits {
		if h != want[i] || h.Half() != (i > 0) {
			t.Errorf("%v, not %v", h, want[i])
		}
	}
}

// TestFindsNothing: noise, and a key with a bit that is wrong in each half of each piece, are no hits.
func TestFindsNothing(t *testing.T) {
	key := noise(1, 64)
	s := New()
	s.Key("key", key)
	s.Key("passphrase", []byte("correct horse battery staple"))
	s.Key("zeros", make([]byte, 64))
	s.Material("memory", noise(2, 4096))
	if hits := s.Scan([]byte(strings.Repeat("0", 1000))); len(hits) != 0 {
		t.Error(hits)
	}
	for _, planted := range written(key) {
		for i := 3; i < len(planted); i += 8 {
			planted[i] ^= 0x10
		}
		if hits := s.Scan(planted); len(hits) != 0 {
			t.Error(hits)
		}
	}
	if hits := s.Scan(noise(3, 64<<20)); len(hits) != 0 {
		t.Error(hits)
	}
}

func TestPassphrase(t *testing.T) {
	phrase := []byte("correct horse battery staple")
	s := New()
	s.Key("passphrase", phrase)
	for _, blob := range []string{"correct horse battery staple", "xcorrect horsex", "ery staple", hex.EncodeToString(phrase),
		"." + base64.StdEncoding.EncodeToString(phrase), base64.StdEncoding.EncodeToString([]byte("x" + string(phrase)))} {
		if len(s.Scan([]byte(blob))) == 0 {
			t.Errorf("nothing is found in %s", blob)
		}
	}
}

// TestMaterial: what looks random in memory that held keys is looked for, and text and padding are not.
func TestMaterial(t *testing.T) {
	memory := append([]byte("nbdcrypt-root-key 1\nstore 0123456789\n\x00\x00\x00........"), make([]byte, 80)...)
	state := noise(1, 16)
	copy(memory[96:], state)
	s := New()
	s.Material("state", memory)
	if hits := s.Scan(memory); len(hits) != 1 || hits[0].Offset != 96 || hits[0].Size != 16 {
		t.Error(hits)
	}
	if hits := s.Scan(swap(state)); len(hits) != 1 {
		t.Error(hits)
	}
	s.Public(state)
	if hits := s.Scan(append(swap(state), memory...)); len(hits) != 0 {
		t.Error(hits)
	}
}

func BenchmarkScan(b *testing.B) {
	s := New()
	for i := range byte(100) {
		s.Key("key", noise(i, 64))
	}
	blob := noise(200, 64<<20)
	b.SetBytes(int64(len(blob)))
	for b.Loop() {
		if hits := s.Scan(blob); len(hits) != 0 {
			b.Fatal(hits)
		}
	}
	b.ReportMetric(float64(s.Size()), "patterns")
}
