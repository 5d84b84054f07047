package keystore

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/child"
	"nbdcrypt/pkg/secret"
)

// signingKey is where the key that signs backups stands in the catalog.
const signingKey = "backup-signing"

// signingRecord is an Ed25519 key. Its seed is sealed once more than the catalog seals it: what reads the record keeps it on the heap.
type signingRecord struct {
	Version int    `json:"v"`
	Public  []byte `json:"public"`
	Seed    []byte `json:"seed"`
}

var signingPurpose = secret.Purpose{Kind: "signing", For: "signing a backup"}

func (s *Store) signingIdentity(public []byte) identity {
	return newIdentity("nbdcrypt/v1/backup-signing", s.c.Root.Store).part(public)
}

// ID is the store's own, which is in every backup.
func (s *Store) ID() uuid.UUID { return s.c.Root.Store }

// SigningKey is the public key of this store's backups. The first call makes the key, which stays for ever.
func (s *Store) SigningKey(ctx context.Context) (ed25519.PublicKey, error) {
	rec, err := s.signing(ctx)
	return rec.Public, damaged(err)
}

// Sign signs the end of a backup. It does not need the root key to be open: a signature releases no data.
func (s *Store) Sign(ctx context.Context, message []byte) (signature []byte, err error) {
	rec, err := s.signing(ctx)
	if err != nil {
		return nil, damaged(err)
	}
	seed, err := secret.Work(child.SeedSize, signingPurpose)
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	defer seed.Destroy()
	m, err := s.c.Root.sealing()
	if err == nil {
		err = openBlob(seed.Bytes(), m, s.signingIdentity(rec.Public), rec.Seed)
	}
	if err != nil {
		return nil, damaged(fmt.Errorf("the key that signs backups: %w", err))
	}
	_, signature, err = child.Ed25519Sign(ctx, seed, message)
	return signature, err
}

// signing reads the key, or makes it. Where two make it at a time one of them is kept.
func (s *Store) signing(ctx context.Context) (rec signingRecord, err error) {
	read := func(r catalog.Reader) (err error) {
		rec, err = readSigning(r)
		return err
	}
	if err = s.c.Catalog.View(ctx, read); !errors.Is(err, catalog.ErrNotFound) {
		return rec, err
	}
	made, err := s.makeSigning(ctx)
	if err != nil {
		return rec, err
	}
	return rec, s.update(ctx, "signing-"+uuid.NewString(), func(t catalog.Txn) error {
		if err := read(t); !errors.Is(err, catalog.ErrNotFound) {
			return err
		}
		rec = made
		return putJSON(t, signingKey, made)
	})
}

func readSigning(r catalog.Reader) (rec signingRecord, err error) {
	b, err := r.Get(signingKey)
	if err != nil {
		return rec, err
	}
	if err := decodeJSON(signingKey, b, &rec); err != nil {
		return rec, err
	}
	if rec.Version != recordVersion || len(rec.Public) != ed25519.PublicKeySize {
		return rec, fmt.Errorf("%w: record %q has version %d and a key of %d bytes", catalog.ErrDamaged, signingKey, rec.Version, len(rec.Public))
	}
	return rec, nil
}

func (s *Store) makeSigning(ctx context.Context) (rec signingRecord, err error) {
	seed, err := secret.RandomWork(child.SeedSize, signingPurpose)
	if err != nil {
		return rec, fmt.Errorf("keystore: %w", err)
	}
	defer seed.Destroy()
	public, _, err := child.Ed25519Sign(ctx, seed, nil)
	if err != nil {
		return rec, err
	}
	rec = signingRecord{Version: recordVersion, Public: public}
	m, err := s.c.Root.sealing()
	if err == nil {
		rec.Seed, err = sealBlob(m, s.signingIdentity(public), seed.Bytes())
	}
	return rec, err
}
