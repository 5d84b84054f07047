package keystore

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/token"
)

// FakeToken is a token in memory, which can be away, and hold other keys.
type FakeToken struct {
	Away bool
	Keys map[string]byte // by their names; each is bytes of one value
	// Asked counts the operations. Saw is everything that was to be sealed or opened, but for secrets of slots and local keys.
	Asked int
	Saw   [][]byte
}

// Plug makes the token the one that all URIs lead to, until the returned function is called.
func (f *FakeToken) Plug() (unplug func()) {
	before := newToken
	newToken = func(uri token.URI) tokenKey { return fakeKey{uri, f} }
	return func() { newToken = before }
}

type fakeKey struct {
	uri token.URI
	*FakeToken
}

func (k fakeKey) URI() token.URI { return k.uri }

func (k fakeKey) gcm() (cipher.AEAD, error) {
	k.Asked++
	b, there := k.Keys[k.uri.Object]
	if k.Away || !there {
		return nil, refusal.New(refusal.Locked, "put it back", "%w: it is in another building", token.ErrAway)
	}
	key := make([]byte, keySize)
	key[0] = b
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func (k fakeKey) Make(context.Context) (bool, error) {
	if _, there := k.Keys[k.uri.Object]; !there && !k.Away {
		k.Keys[k.uri.Object] = 1
	}
	_, err := k.gcm()
	return false, err
}

func (k fakeKey) Find(context.Context) (string, error) {
	_, err := k.gcm()
	return "a key", err
}

func (k fakeKey) Seal(_ context.Context, data, aad []byte) (token.Mechanism, []byte, error) {
	g, err := k.gcm()
	if err != nil {
		return 0, nil, err
	}
	if len(data) != keySize {
		k.Saw = append(k.Saw, append([]byte{}, data...))
	}
	nonce := make([]byte, g.NonceSize())
	rand.Read(nonce)
	return token.AESGCM, g.Seal(nonce, nonce, data, aad), nil
}

func (k fakeKey) Open(_ context.Context, dst []byte, m token.Mechanism, sealed, aad []byte) error {
	g, err := k.gcm()
	if err != nil {
		return err
	}
	if m != token.AESGCM || len(sealed) < g.NonceSize() {
		return errors.Join(token.ErrAltered, fmt.Errorf("with %v", m))
	}
	plain, err := g.Open(nil, sealed[:g.NonceSize()], sealed[g.NonceSize():], aad)
	if err != nil || len(plain) != len(dst) {
		return token.ErrAltered
	}
	copy(dst, plain)
	return nil
}

// Wrapped is a CMK's first version as it lies in its record.
func Wrapped(r catalog.Reader, project, id string) ([]byte, error) {
	rec, err := readCMK(r, cmkKey(project, id))
	if err != nil {
		return nil, err
	}
	return rec.Versions[0].Wrapped, nil
}

// SetWrapped puts another blob in its place.
func SetWrapped(t catalog.Txn, project, id string, blob []byte) error {
	rec, err := readCMK(t, cmkKey(project, id))
	if err != nil {
		return err
	}
	rec.Versions[0].Wrapped = blob
	return putJSON(t, rec.key(), rec)
}

func somePKCS11() pkcs11Way {
	uri, err := token.Parse("pkcs11:token=box;object=root?module-path=/m.so&pin-source=file:/pin")
	if err != nil {
		panic(err)
	}
	return pkcs11Way{uri, token.AESGCM, append([]byte{10}, make([]byte, 59)...)}
}
