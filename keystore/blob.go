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
	mem, err := secret.Work(aes256.GCMSize+keySize+hkdfSize, deriving)
	if err != nil {
		return fmt.Errorf("keystore: %w", err)
	}
	defer mem.Destroy()
	schedule, rest := mem.Bytes()[:aes256.GCMSize], mem.Bytes()[aes256.GCMSize:]
	key, state := rest[:keySize], rest[keySize:]
	secret.Do(func() {
		if err = hashState(state).derive(key, m, id); err != nil {
			return
		}
		var g *aes256.GCM
		if g, err = aes256.NewGCM(schedule, key); err == nil {
			err = fn(g)
		}
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
	aad := id.sealing(blob[1])
	err := withGCM(m, id, func(g *aes256.GCM) error { return g.Open(dst, blob[2:blobHead], blob[blobHead:], aad) })
	if errors.Is(err, aes256.ErrOpen) {
		return fmt.Errorf("%w: it was altered, moved here, or sealed under another key", errBlob)
	}
	return err
}
