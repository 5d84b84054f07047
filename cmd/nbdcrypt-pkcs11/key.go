//go:build pkcs11

package main

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"fmt"
	"math/big"

	"github.com/miekg/pkcs11"

	"nbdcrypt/pkg/token"
)

// key is a key on the token that is fit: it can't leave the token.
type key struct {
	handle pkcs11.ObjectHandle
	rsa    *rsa.PublicKey // nil for AES
	words  string
}

const (
	aesBytes = 32
	leastRSA = 2048
	enough   = 2 // a third key that fits tells no more than the second
)

// naming is the template of a key's name.
func naming(uri token.URI, class uint) []*pkcs11.Attribute {
	t := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true)}
	if uri.Object != "" {
		t = append(t, pkcs11.NewAttribute(pkcs11.CKA_LABEL, uri.Object))
	}
	if len(uri.ID) > 0 {
		t = append(t, pkcs11.NewAttribute(pkcs11.CKA_ID, uri.ID))
	}
	return t
}

func (s *session) objects(uri token.URI, class uint) ([]pkcs11.ObjectHandle, error) {
	if err := s.FindObjectsInit(s.handle, naming(uri, class)); err != nil {
		return nil, fail(token.Away, "the token's keys can't be searched: %v", err)
	}
	found, _, err := s.FindObjects(s.handle, enough)
	if end := s.FindObjectsFinal(s.handle); err == nil {
		err = end
	}
	if err != nil {
		return nil, fail(token.Away, "the token's keys can't be searched: %v", err)
	}
	return found, nil
}

// find finds the one key of that name.
func (s *session) find(uri token.URI, classes ...uint) (k key, err error) {
	found := 0
	for _, class := range classes {
		handles, err := s.objects(uri, class)
		if err != nil {
			return k, err
		}
		for _, h := range handles {
			k.handle = h
			found++
		}
	}
	switch {
	case found == 0:
		return k, fail(token.Away, "the token %s has no key of that name", s.token.Label)
	case found > 1:
		return k, fail(token.Unfit, "the token %s has several keys of that name: name an id too", s.token.Label)
	}
	return k, s.fit(uri, &k)
}

// fit refuses a key that could leave the token, or is too weak.
func (s *session) fit(uri token.URI, k *key) error {
	a, err := s.GetAttributeValue(s.handle, k.handle, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, nil),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, nil), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, nil), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, nil)})
	switch {
	case err != nil:
		return fail(token.Away, "the token does not tell what the key is: %v", err)
	case !isTrue(a[1]) || isTrue(a[2]):
		return fail(token.Unfit, "the key can be taken off the token: it has to be sensitive and not extractable")
	case !isTrue(a[3]):
		return fail(token.Unfit, "the key is not made for decrypting")
	}
	switch number(a[0]) {
	case pkcs11.CKK_AES:
		return s.fitAES(k)
	case pkcs11.CKK_RSA:
		return s.fitRSA(uri, k)
	}
	return fail(token.Unfit, "the key is neither AES nor RSA")
}

func (s *session) fitAES(k *key) error {
	a, err := s.GetAttributeValue(s.handle, k.handle, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, nil)})
	if err != nil || number(a[0]) != aesBytes {
		return fail(token.Unfit, "the key is not one of AES-256")
	}
	k.words = "AES-256 key"
	return nil
}

// fitRSA reads the public key, which some tokens keep in an object of its own only.
func (s *session) fitRSA(uri token.URI, k *key) error {
	handles, err := s.objects(uri, pkcs11.CKO_PUBLIC_KEY)
	if err != nil {
		return err
	}
	for _, h := range append([]pkcs11.ObjectHandle{k.handle}, handles...) {
		a, err := s.GetAttributeValue(s.handle, h, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_MODULUS, nil),
			pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, nil)})
		if err != nil || len(a[0].Value) == 0 || len(a[1].Value) == 0 || len(a[1].Value) > 4 {
			continue
		}
		e := new(big.Int).SetBytes(a[1].Value)
		k.rsa = &rsa.PublicKey{N: new(big.Int).SetBytes(a[0].Value), E: int(e.Int64())}
		if k.rsa.N.BitLen() < leastRSA {
			return fail(token.Unfit, "the RSA key has %d bits, and %d are the least", k.rsa.N.BitLen(), leastRSA)
		}
		k.words = fmt.Sprintf("RSA-%d key", k.rsa.N.BitLen())
		return nil
	}
	return fail(token.Unfit, "the token does not give out the public half of the RSA key")
}

// make makes an AES key of that name, unless there is one.
func (s *session) make(uri token.URI) (made bool, err error) {
	there, err := s.objects(uri, pkcs11.CKO_SECRET_KEY)
	if err != nil {
		return false, err
	}
	pairs, err := s.objects(uri, pkcs11.CKO_PRIVATE_KEY)
	switch {
	case err != nil:
		return false, err
	case len(pairs) > 0:
		return false, fail(token.Unfit, "the token %s has a key pair of that name: a store is held by an AES key", s.token.Label)
	case len(there) > 0:
		_, err := s.find(uri, pkcs11.CKO_SECRET_KEY)
		return false, err
	}
	if uri.Object == "" {
		return false, fail(token.Unfit, "a new key needs a name: object= is missing")
	}
	t := naming(uri, pkcs11.CKO_SECRET_KEY)
	if len(uri.ID) == 0 {
		id := make([]byte, 16)
		rand.Read(id)
		t = append(t, pkcs11.NewAttribute(pkcs11.CKA_ID, id))
	}
	for _, kind := range []uint{pkcs11.CKA_PRIVATE, pkcs11.CKA_SENSITIVE, pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT} {
		t = append(t, pkcs11.NewAttribute(kind, true))
	}
	t = append(t, pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false), pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, aesBytes))
	if _, err := s.GenerateKey(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, t); err != nil {
		return false, fail(token.Away, "the token makes no AES key: %v", err)
	}
	_, err = s.find(uri, pkcs11.CKO_SECRET_KEY)
	return true, err
}

func isTrue(a *pkcs11.Attribute) bool { return len(a.Value) == 1 && a.Value[0] != 0 }

// number reads a CK_ULONG, which has the machine's own form.
func number(a *pkcs11.Attribute) uint {
	switch len(a.Value) {
	case 4:
		return uint(binary.NativeEndian.Uint32(a.Value))
	case 8:
		return uint(binary.NativeEndian.Uint64(a.Value))
	}
	return ^uint(0)
}
