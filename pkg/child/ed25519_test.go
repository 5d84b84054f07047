package child

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"testing"

	"nbdcrypt/pkg/secret"
)

func TestEd25519Signs(t *testing.T) {
	seed, err := secret.Random(SeedSize, secret.Purpose{Kind: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer seed.Destroy()
	for _, message := range [][]byte{nil, []byte("m"), bytes.Repeat([]byte{3}, maxMessage)} {
		public, signature, err := Ed25519Sign(t.Context(), seed, message)
		if err != nil {
			t.Fatal(err)
		}
		want := ed25519.NewKeyFromSeed(bytes.Clone(seed.Bytes()))
		if !public.Equal(want.Public()) || !bytes.Equal(signature, ed25519.Sign(want, message)) {
			t.Errorf("%d bytes are signed otherwise in the child", len(message))
		}
	}
	if _, _, err := Ed25519Sign(t.Context(), seed, make([]byte, maxMessage+1)); !errors.Is(err, errRequest) {
		t.Error(err)
	}
	if _, err := doEd25519Sign(make([]byte, SeedSize-1), make([]byte, ed25519Sign.answer)); !errors.Is(err, errRequest) {
		t.Error(err)
	}
}
