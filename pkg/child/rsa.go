package child

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os/exec"
	"time"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

// Key material comes from elsewhere wrapped under an RSA key that is made here, by RSA-OAEP with SHA-256 (RFC 8017), as other key
// stores have it too.
const (
	rsaBits = 4096
	// WrappedSize is the length of what RSAUnwrap opens.
	WrappedSize = rsaBits / 8
	// RSAPrivateSize is the length of a private key: its two primes, big-endian, from which all else follows.
	RSAPrivateSize = rsaBits / 8
	primeSize      = RSAPrivateSize / 2
	rsaExponent    = 65537
	maxRSAPublic   = 640
)

// What an operation says it failed of, beside what all may.
const (
	classNotWrapped = 2
	classLength     = 3
)

// ErrNotWrapped: the bytes were not wrapped under this key, or not in this way.
var ErrNotWrapped = errors.New("it was not wrapped with this wrapping key by RSA-OAEP with SHA-256")

// WrongLength is the length of what was wrapped, where that is not KeySize.
type WrongLength int

func (n WrongLength) Error() string {
	return fmt.Sprintf("what was wrapped has %d bytes, not %d", int(n), KeySize)
}

var (
	// One at a time: each takes a processor for a second or more.
	rsaMake = &operation{word: "rsa-make", request: 0, answer: RSAPrivateSize + maxRSAPublic, timeout: 2 * time.Minute,
		turn: make(chan struct{}, 1), do: doRSAMake}
	rsaUnwrap = &operation{word: "rsa-unwrap", request: RSAPrivateSize + WrappedSize, answer: KeySize, timeout: time.Minute, do: doRSAUnwrap}
)

// RSAKey makes a key pair: the public key as PEM, and the private one, which is the caller's to destroy.
func RSAKey(ctx context.Context) (public []byte, private *secret.Key, err error) {
	answer, err := run(ctx, rsaMake, wrappingPurpose)
	if err != nil {
		return nil, nil, explainRSA(err)
	}
	defer answer.Destroy()
	b := answer.Bytes()
	if len(b) <= RSAPrivateSize {
		return nil, nil, fmt.Errorf("child: its answer of %d bytes is no key pair", len(b))
	}
	if private, err = secret.Work(RSAPrivateSize, wrappingPurpose); err != nil {
		return nil, nil, fmt.Errorf("child: %w", err)
	}
	secret.Do(func() {
		to := private.Bytes()
		for i := range to { // not copy, which takes vector registers
			to[i] = b[i]
		}
	})
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: b[RSAPrivateSize:]}), private, nil
}

var wrappingPurpose = secret.Purpose{Kind: "derived", For: "importing key material"}

// RSAUnwrap opens KeySize bytes that were wrapped under the public key; they are the caller's to destroy. What else was wrapped,
// or in another way, is ErrNotWrapped or WrongLength.
func RSAUnwrap(ctx context.Context, private *secret.Key, wrapped []byte, why secret.Purpose) (*secret.Key, error) {
	if len(wrapped) != WrappedSize {
		return nil, ErrNotWrapped
	}
	answer, err := run(ctx, rsaUnwrap, why, private.Bytes(), wrapped)
	switch classOf(err) {
	case classNotWrapped:
		return nil, ErrNotWrapped
	case classLength:
		return nil, wrongLength(err)
	}
	if err != nil {
		return nil, explainRSA(err)
	}
	if answer.Len() != KeySize {
		answer.Destroy()
		return nil, fmt.Errorf("child: its answer is no key of %d bytes", KeySize)
	}
	return answer, nil
}

func doRSAMake(_, answer []byte) (int, error) {
	key, err := rsa.GenerateKey(rand.Reader, rsaBits)
	if err != nil {
		return 0, err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return 0, err
	}
	if len(key.Primes) != 2 || key.E != rsaExponent || len(public) > maxRSAPublic {
		return 0, fmt.Errorf("child: a key of %d primes, exponent %d and %d public bytes", len(key.Primes), key.E, len(public))
	}
	key.Primes[0].FillBytes(answer[:primeSize])
	key.Primes[1].FillBytes(answer[primeSize:RSAPrivateSize])
	return RSAPrivateSize + copy(answer[RSAPrivateSize:], public), nil
}

// privateOf makes a key of its primes again.
func privateOf(primes []byte) (*rsa.PrivateKey, error) {
	p, q, one := new(big.Int).SetBytes(primes[:primeSize]), new(big.Int).SetBytes(primes[primeSize:]), big.NewInt(1)
	order := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	if order.Sign() <= 0 {
		return nil, fmt.Errorf("%w: it has no primes", errRequest)
	}
	d := new(big.Int).ModInverse(big.NewInt(rsaExponent), order)
	if d == nil {
		return nil, fmt.Errorf("%w: its primes don't go with the exponent", errRequest)
	}
	key := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: rsaExponent}, D: d, Primes: []*big.Int{p, q}}
	key.Precompute()
	if err := key.Validate(); err != nil || key.Size() != WrappedSize {
		return nil, fmt.Errorf("%w: it has no RSA key of %d bits: %w", errRequest, rsaBits, err)
	}
	return key, nil
}

// doRSAUnwrap works on a private key, with what was wrapped behind it.
func doRSAUnwrap(request, answer []byte) (int, error) {
	if len(request) != RSAPrivateSize+WrappedSize {
		return 0, fmt.Errorf("%w: it has %d bytes", errRequest, len(request))
	}
	key, err := privateOf(request[:RSAPrivateSize])
	if err != nil {
		return 0, err
	}
	plain, err := rsa.DecryptOAEP(sha256.New(), nil, key, request[RSAPrivateSize:], nil)
	switch {
	case err != nil:
		return 0, &failure{classNotWrapped, err}
	case len(plain) != KeySize:
		return 0, &failure{classLength, fmt.Errorf("%d", len(plain))}
	}
	return copy(answer, plain), nil
}

// wrongLength reads the number that comes with classLength.
func wrongLength(err error) error {
	var n int
	if _, bad := fmt.Sscanf(err.Error(), `"%d"`, &n); bad != nil {
		return err
	}
	return WrongLength(n)
}

// explainRSA makes a refusal of how a child failed.
func explainRSA(err error) error {
	var exit *exec.ExitError
	next := "see what the system's log says of it, then try again"
	if errors.As(err, &exit) || errors.As(err, &errSlow{}) {
		next = "see that some memory and time of the processor are free for it, then try again"
	}
	return refusal.New(refusal.Failed, next, "the process that computes RSA gave nothing: %w", err)
}
