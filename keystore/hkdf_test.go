package keystore

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"testing"
)

// derive is HKDF as the store uses it.
func derive(dst []byte, m material, info identity) error {
	return withHash(func(h *hkdfState) error { return h.derive(dst, m, info) })
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	must0(t, err)
	return b
}

// The first block of the vectors of RFC 5869, A.1 and A.3.
func TestDeriveKnownAnswers(t *testing.T) {
	ikm := bytes.Repeat([]byte{0x0b}, 22)
	for _, v := range []struct{ salt, info, okm string }{
		{"000102030405060708090a0b0c", "f0f1f2f3f4f5f6f7f8f9", "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"},
		{"", "", "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"},
	} {
		got := make([]byte, 32)
		must0(t, derive(got, material{key: ikm, salt: unhex(t, v.salt)}, unhex(t, v.info)))
		if hex.EncodeToString(got) != v.okm {
			t.Errorf("salt %q: %x", v.salt, got)
		}
	}
}

// Every length of the inputs around the borders of a block, against the standard library.
func TestDeriveAgreesWithTheStandardLibrary(t *testing.T) {
	random := make([]byte, 300)
	rand.Read(random)
	for n := range 140 {
		ikm, salt, info := random[:n], random[100:100+n%65], random[150:150+n]
		want, err := hkdf.Key(sha256.New, ikm, salt, string(info), 32)
		must0(t, err)
		got := make([]byte, 1+n%32)
		must0(t, derive(got, material{key: ikm, salt: salt}, info))
		if !bytes.Equal(got, want[:len(got)]) {
			t.Fatalf("with %d bytes they differ", n)
		}
	}
	if derive(make([]byte, 33), material{}, nil) == nil || derive(make([]byte, 32), material{salt: make([]byte, 65)}, nil) == nil {
		t.Error("more than one block is given out, or a salt taken that is longer")
	}
}
