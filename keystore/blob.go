package keystore

import (
	"crypto/rand"
	"errors"
	"fmt"

	"nbdcrypt/pkg/aes256"
	"nbdcrypt/pkg/secret"
)

// A blob is a version byte, a flags byte, the nonce, and GCM's ciphertext with its tag.
const (
	blobVersion  = 1
	blobHead     = 2 + aes256.NonceSize
	blobOverhead = blobHead + aes256.Overhead
	keySize      = 32
)

var errBlob = errors.New("keystore: does not open")

// withGCM runs fn with the cipher under the key derived for id. Key and schedule live in secret memory until it
// returns.
func withGCM(m material, id identity, fn func(*aes256.GCM) error) error {
	return withGCMs(m, func(under func(identity) (*aes256.GCM, error)) error {
		g, err := under(id)
		if err != nil {
			return err
		}
		return fn(g)
	})
}

// withGCMs is withGCM for many identities, one after the other: most of what it takes is the same for all. The cipher for one is
// good until that for the next is asked for.
func withGCMs(m material, fn func(under func(identity) (*aes256.GCM, error)) error) error {
	mem, err := secret.Work(aes256.GCMSize+keySize+hkdfSize, deriving)
	if err != nil {
		return fmt.Errorf("keystore: %w", err)
	}
	defer mem.Destroy()
	schedule, rest := mem.Bytes()[:aes256.GCMSize], mem.Bytes()[aes256.GCMSize:]
	key, state := rest[:keySize], rest[keySize:]
	secret.Do(func() {
		h := hashState(state)
		if err = h.take(m); err != nil {
			return
		}
		err = fn(func(id identity) (*aes256.GCM, error) {
			if err := h.expand(key, id); err != nil {
				return nil, err
			}
			return aes256.NewGCM(schedule, key)
		})
	})
	return err
}

// sealBlob seals plain under the key that m gives for id.
func sealBlob(m material, id identity, plain []byte) ([]byte, error) {
	blob := make([]byte, len(plain)+blobOverhead)
	blob[0] = blobVersion
	nonce, aad := blob[2:blobHead], id.sealing(0)
	rand.Read(nonce)
	err := withGCM(m, id, func(g *aes256.GCM) error { return g.Seal(blob[blobHead:], nonce, plain, aad) })
	return blob, err
}

// checkBlob looks at what can be told without a key.
func checkBlob(blob []byte, plain int) error {
	switch {
	case len(blob) < blobOverhead:
		return fmt.Errorf("%w: %d bytes are too few", errBlob, len(blob))
	case blob[0] != blobVersion:
		return fmt.Errorf("%w: it has version %d, this build reads version %d", errBlob, blob[0], blobVersion)
	case blob[1] != 0:
		return fmt.Errorf("%w: it has flags %#x, this build knows none", errBlob, blob[1])
	case len(blob) != plain+blobOverhead:
		return fmt.Errorf("%w: %d bytes are not %d and %d", errBlob, len(blob), plain, blobOverhead)
	}
	return nil
}

// openBlob opens a blob straight into dst, which decides how long it has to be.
func openBlob(dst []byte, m material, id identity, blob []byte) error {
	if err := checkBlob(blob, len(dst)); err != nil {
		return err
	}
	return withGCM(m, id, func(g *aes256.GCM) error { return openWith(g, dst, id, blob) })
}

// openWith opens a blob that was checked with the cipher for its identity.
func openWith(g *aes256.GCM, dst []byte, id identity, blob []byte) error {
	err := g.Open(dst, blob[2:blobHead], blob[blobHead:], id.sealing(blob[1]))
	if errors.Is(err, aes256.ErrOpen) {
		return fmt.Errorf("%w: it was altered, moved here, or sealed under another key", errBlob)
	}
	return err
}
