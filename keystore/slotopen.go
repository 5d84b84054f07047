package keystore

import (
	"context"
	"errors"
	"fmt"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

// openSlot opens a slot into a key that memory gives; errBlob where what was given is another slot's.
func (r *Root) openSlot(ctx context.Context, s slot, given *secret.Key, memory func(int, secret.Purpose) (*secret.Key, error)) (*secret.Key, error) {
	wrapping, err := s.way.release(ctx, given)
	if err != nil {
		return nil, err
	}
	defer wrapping.Destroy()
	key, err := memory(keySize, rootPurpose(r.Store))
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	if err = openBlob(key.Bytes(), material{key: wrapping.Bytes()}, s.identity(), s.wrapped); err == nil {
		err = r.checkRoot(key)
	}
	if err != nil {
		key.Destroy()
		return nil, err
	}
	return key, nil
}

// checkRoot holds a key that a slot gave against the store's header.
func (r *Root) checkRoot(key *secret.Key) error {
	have, err := newHeader(key, r.Store)
	if err == nil && have.rootID != r.header.rootID {
		err = refusal.New(refusal.Damaged, "restore the state directory from a backup", "it opens to a key that is not this store's root key")
	}
	return err
}

// nothing is what to say where what a person gave opens no slot.
type nothing struct{ noSlot, noFit error }

// unlockGiven opens the root key by whichever slot of a kind takes what a person gave, and tells which.
func (r *Root) unlockGiven(ctx context.Context, kind string, given *secret.Key, otherwise nothing) (SlotInfo, error) {
	f, key, err := r.tryGiven(ctx, kind, given, secret.New, otherwise)
	if err != nil {
		return SlotInfo{}, fullRefusal(err)
	}
	return f.info(), r.adopt(key)
}

// tryGiven opens the first slot of a kind that takes what was given. One that fails for other reasons keeps no other from
// being tried.
func (r *Root) tryGiven(ctx context.Context, kind string, given *secret.Key, memory func(int, secret.Purpose) (*secret.Key, error),
	otherwise nothing) (foundSlot, *secret.Key, error) {
	found, err := r.findSlots()
	if err != nil {
		return foundSlot{}, nil, err
	}
	var failed error
	tried := 0
	for _, f := range found {
		if f.bad != nil || f.kind != kind {
			continue
		}
		tried++
		key, err := r.openSlot(ctx, f.slot, given, memory)
		switch {
		case err == nil:
			return f, key, nil
		case ctx.Err() != nil:
			return f, nil, err
		case !errors.Is(err, errBlob):
			failed = errors.Join(failed, fmt.Errorf("slot %s: %w", f.id, err))
		}
	}
	switch {
	case failed != nil:
		return foundSlot{}, nil, failed
	case tried == 0:
		return foundSlot{}, nil, otherwise.noSlot
	}
	return foundSlot{}, nil, otherwise.noFit
}
