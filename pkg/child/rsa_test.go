package child

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

// wrapWith wraps as whoever owns the key material does.
func wrapWith(t *testing.T, public, plain []byte) []byte {
	t.Helper()
	block, rest := pem.Decode(public)
	if block == nil || len(rest) != 0 || block.Type != "PUBLIC KEY" {
		t.Fatalf("the public key is %q", public)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, key.(*rsa.PublicKey), plain, nil)
	if err != nil {
		t.Fatal(err)
	}
	return wrapped
}

func TestRuleB7_RSAUnwraps(t *testing.T) {
	public, private, err := RSAKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer private.Destroy()
	why := secret.Purpose{Kind: "test"}
	plain := bytes.Repeat([]byte{0x5a, 0}, KeySize/2)
	wrapped := wrapWith(t, public, plain)
	got, err := RSAUnwrap(t.Context(), private, wrapped, why)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), plain) {
		t.Errorf("it opens to %x", got.Bytes())
	}
	got.Destroy()
	for _, n := range []int{0, 1, 16, 31, 33, 64} {
		var length WrongLength
		if _, err := RSAUnwrap(t.Context(), private, wrapWith(t, public, make([]byte, n)), why); !errors.As(err, &length) || int(length) != n {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	flipped := bytes.Clone(wrapped)
	flipped[100] ^= 1
	for what, bad := range map[string][]byte{"flipped": flipped, "short": wrapped[1:], "empty": nil, "zeros": make([]byte, WrappedSize),
		"long": append([]byte{0}, wrapped...)} {
		if _, err := RSAUnwrap(t.Context(), private, bad, why); !errors.Is(err, ErrNotWrapped) {
			t.Errorf("%s: %v", what, err)
		}
	}
	clear(private.Bytes())
	_, err = RSAUnwrap(t.Context(), private, wrapped, why)
	if r := refusal.From(err); r == nil || r.Code != refusal.Failed || !strings.Contains(r.Message, "RSA") {
		t.Errorf("a private key that is none: %v", err)
	}
	if n := secret.Unwiped(); n != 0 {
		t.Errorf("%d bytes are not wiped", n)
	}
}
