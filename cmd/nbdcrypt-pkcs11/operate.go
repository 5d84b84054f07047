//go:build pkcs11

package main

import (
	"fmt"

	"github.com/miekg/pkcs11"

	"nbdcrypt/pkg/token"
)

// operate does what is asked with the key on its token and lays the result into out. The token is let go of before that returns.
func operate(r token.Request, out []byte) (int, error) {
	s, err := connect(r.Key, r.Operation == token.Make)
	if err != nil {
		return 0, err
	}
	defer s.close()
	if r.Operation == token.Make {
		made, err := s.make(r.Key)
		if made {
			out[0] = 1
		}
		return 1, err
	}
	k, err := s.find(r.Key, pkcs11.CKO_SECRET_KEY, pkcs11.CKO_PRIVATE_KEY)
	if err != nil {
		return 0, err
	}
	switch r.Operation {
	case token.Find:
		return copy(out, fmt.Sprintf("%s on token %s (%s %s, serial %s)", k.words, s.token.Label, s.token.ManufacturerID, s.token.Model,
			s.token.SerialNumber)), nil
	case token.Seal:
		m, sealed, err := s.seal(k, r.Data, r.AAD)
		if err != nil {
			return 0, err
		}
		out[0] = byte(m)
		return 1 + copy(out[1:], sealed), nil
	}
	plain, err := s.open(k, r.Mechanism, r.Data, r.AAD)
	defer clear(plain)
	return copy(out, plain), err
}
