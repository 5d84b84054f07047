package child

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

// SeedSize is the length of an Ed25519 private key (RFC 8032), from which all else follows.
const SeedSize = ed25519.SeedSize

// maxMessage is the longest message that is signed.
const maxMessage = 8 << 10

var ed25519Sign = &operation{word: "ed25519-sign", request: SeedSize + maxMessage, answer: ed25519.PublicKeySize + ed25519.SignatureSize,
	timeout: time.Minute, do: doEd25519Sign}

// Ed25519Sign signs a message, and tells the public key. The library keeps what it makes of a seed on its heap.
func Ed25519Sign(ctx context.Context, seed *secret.Key, message []byte) (public ed25519.PublicKey, signature []byte, err error) {
	answer, err := run(ctx, ed25519Sign, secret.Purpose{Kind: "derived", For: "one signature"}, seed.Bytes(), message)
	if err != nil {
		return nil, nil, explainSign(err)
	}
	defer answer.Destroy()
	if answer.Len() != ed25519Sign.answer {
		return nil, nil, fmt.Errorf("child: its answer of %d bytes is no signature", answer.Len())
	}
	b := append([]byte{}, answer.Bytes()...) // neither is secret
	return b[:ed25519.PublicKeySize:ed25519.PublicKeySize], b[ed25519.PublicKeySize:], nil
}

// doEd25519Sign works on a seed, with the message behind it.
func doEd25519Sign(request, answer []byte) (int, error) {
	if len(request) < SeedSize || len(request) > SeedSize+maxMessage {
		return 0, fmt.Errorf("%w: it has %d bytes", errRequest, len(request))
	}
	key := ed25519.NewKeyFromSeed(request[:SeedSize])
	n := copy(answer, key[SeedSize:])
	return n + copy(answer[n:], ed25519.Sign(key, request[SeedSize:])), nil
}

// explainSign makes a refusal of how a child failed.
func explainSign(err error) error {
	var exit *exec.ExitError
	next := "see what the system's log says of it, then try again"
	if errors.As(err, &exit) || errors.As(err, &errSlow{}) {
		next = "see that some memory and time of the processor are free for it, then try again"
	}
	return refusal.New(refusal.Failed, next, "the process that signs gave nothing: %w", err)
}
