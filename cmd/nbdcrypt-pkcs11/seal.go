//go:build pkcs11

package main

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1"
	_ "crypto/sha256"

	"github.com/miekg/pkcs11"

	"nbdcrypt/pkg/token"
)

const (
	nonceBytes = 12
	tagBits    = 128
)

// seal encrypts data, and sees that the token opens it again.
func (s *session) seal(k key, data, aad []byte) (m token.Mechanism, sealed []byte, err error) {
	if k.rsa == nil {
		sealed, err = s.sealAES(k, data, aad)
		return token.AESGCM, sealed, err
	}
	for _, m = range []token.Mechanism{token.RSAOAEPSHA256, token.RSAOAEPSHA1} {
		if sealed, err = rsa.EncryptOAEP(hash(m).New(), rand.Reader, k.rsa, data, nil); err != nil {
			return m, nil, fail(token.Unfit, "sealing under the RSA key: %v", err)
		}
		var again []byte
		if again, err = s.decrypt(k, m, sealed, nil); err == nil && bytes.Equal(again, data) {
			clear(again)
			return m, sealed, nil
		}
	}
	return m, nil, fail(token.Unfit, "the token does not decrypt RSA-OAEP: %v", err)
}

func hash(m token.Mechanism) crypto.Hash {
	if m == token.RSAOAEPSHA1 {
		return crypto.SHA1
	}
	return crypto.SHA256
}

func (s *session) sealAES(k key, data, aad []byte) ([]byte, error) {
	nonce := make([]byte, nonceBytes)
	rand.Read(nonce)
	params := pkcs11.NewGCMParams(nonce, aad, tagBits)
	defer params.Free()
	err := s.EncryptInit(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, k.handle)
	if err != nil {
		return nil, fail(token.Away, "the token does not encrypt with AES-GCM: %v", err)
	}
	sealed, err := s.Encrypt(s.handle, data)
	if err != nil {
		return nil, fail(token.Away, "the token does not encrypt with AES-GCM: %v", err)
	}
	nonce = params.IV() // some tokens take one of their own
	if len(nonce) != nonceBytes || len(sealed) != len(data)+tagBits/8 {
		return nil, fail(token.Unfit, "the token's AES-GCM has a nonce of %d bytes and adds %d", len(nonce), len(sealed)-len(data))
	}
	return append(nonce, sealed...), nil
}

// open decrypts. Tokens give many errors for what was altered; that one which opens what it just sealed tells those from its own troubles.
func (s *session) open(k key, m token.Mechanism, sealed, aad []byte) ([]byte, error) {
	if (k.rsa == nil) != (m == token.AESGCM) || len(sealed) < nonceBytes+tagBits/8 {
		return nil, fail(token.Altered, "it was not sealed by a key of this kind")
	}
	plain, err := s.decrypt(k, m, sealed, aad)
	if err == nil {
		return plain, nil
	}
	probe := []byte("probe")
	if m, again, e := s.seal(k, probe, aad); e == nil {
		if got, e := s.decrypt(k, m, again, aad); e == nil && bytes.Equal(got, probe) {
			return nil, fail(token.Altered, "the token does not open it: %v", err)
		}
	}
	return nil, fail(token.Away, "the token does not decrypt: %v", err)
}

func (s *session) decrypt(k key, m token.Mechanism, sealed, aad []byte) ([]byte, error) {
	var mechanism *pkcs11.Mechanism
	switch m {
	case token.AESGCM:
		params := pkcs11.NewGCMParams(sealed[:nonceBytes], aad, tagBits)
		defer params.Free()
		mechanism, sealed = pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params), sealed[nonceBytes:]
	case token.RSAOAEPSHA256:
		mechanism = pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_OAEP, pkcs11.NewOAEPParams(pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256, pkcs11.CKZ_DATA_SPECIFIED, nil))
	default:
		mechanism = pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_OAEP, pkcs11.NewOAEPParams(pkcs11.CKM_SHA_1, pkcs11.CKG_MGF1_SHA1, pkcs11.CKZ_DATA_SPECIFIED, nil))
	}
	if err := s.DecryptInit(s.handle, []*pkcs11.Mechanism{mechanism}, k.handle); err != nil {
		return nil, err
	}
	return s.Decrypt(s.handle, sealed)
}
