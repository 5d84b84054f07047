package keystore

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
	"nbdcrypt/pkg/token"
)

const (
	kindPKCS11 = "pkcs11"
	// maxSealed is what RSA of 8192 bits gives.
	maxSealedSecret = 1024
)

// slotSecretAAD is what AES-GCM on a token binds a slot's secret to; the slot itself is bound to by how the root key is wrapped.
const slotSecretAAD = "nbdcrypt/v1/slot-secret"

// pkcs11Way has a key on a token decrypt the slot's secret.
type pkcs11Way struct {
	uri       token.URI
	mechanism token.Mechanism
	sealed    []byte
}

func parsePKCS11(l *lines) way {
	var w pkcs11Way
	var err error
	w.uri, err = token.Parse(l.next("token"))
	l.check(err)
	w.mechanism, err = token.MechanismOf(l.next("mechanism"))
	l.check(err)
	w.sealed, err = hex.DecodeString(l.next("sealed"))
	l.check(err)
	return w
}

func (w pkcs11Way) lines() string {
	return fmt.Sprintf("token %s\nmechanism %s\nsealed %x\n", w.uri, w.mechanism, w.sealed)
}

func (w pkcs11Way) check() error {
	if n := len(w.sealed); n <= keySize || n > maxSealedSecret {
		return fmt.Errorf("%w: the token sealed %d bytes to %d", errText, keySize, n)
	}
	return nil
}

func (w pkcs11Way) detail() string { return fmt.Sprintf("%s by %s", w.mechanism, w.uri) }

func (pkcs11Way) automatic() bool { return true }

// ready looks at the library alone: only asking tells of the token.
func (w pkcs11Way) ready() error {
	_, err := os.Stat(w.uri.Module)
	return err
}

func (w pkcs11Way) release(ctx context.Context, _ *secret.Key) (*secret.Key, error) {
	key, err := secret.Work(keySize, deriving)
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	err = newToken(w.uri).Open(ctx, key.Bytes(), w.mechanism, w.sealed, []byte(slotSecretAAD))
	if errors.Is(err, token.ErrAltered) {
		err = refusal.New(refusal.Locked, "restore the key on the token from its backup, or remove the slot and add it again",
			"%w: the key %s is another one than that which the slot was made with", errBlob, w.uri.Name())
	}
	if err != nil {
		key.Destroy()
		return nil, err
	}
	return key, nil
}

// AddToken makes a slot that a key on a token opens, without anybody. It was opened once before it counts.
func (r *Root) AddToken(ctx context.Context, name, uri string) (SlotInfo, error) {
	k, err := parseToken(uri, r.stateDir)
	if err != nil {
		return SlotInfo{}, err
	}
	return r.addSlot(ctx, kindPKCS11, name, func(slot) (fresh, error) {
		wrapping, err := secret.RandomWork(keySize, deriving)
		if err != nil {
			return fresh{}, fmt.Errorf("keystore: %w", err)
		}
		m, sealed, err := k.Seal(ctx, wrapping.Bytes(), []byte(slotSecretAAD))
		if err != nil {
			wrapping.Destroy()
			return fresh{}, err
		}
		return fresh{way: pkcs11Way{k.URI(), m, sealed}, secret: wrapping}, nil
	})
}
