package keystore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

var errLocked = errors.New("the root key is locked")

func locked() error {
	return refusal.New(refusal.Locked, "run `nbdcrypt root unlock`", "%w", errLocked)
}

// Locked tells whether the root key is locked.
func (r *Root) Locked() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.key == nil
}

// needOpen refuses while the root key is locked: before something is spent on what would be refused later.
func (r *Root) needOpen() error {
	if r.Locked() {
		return locked()
	}
	return nil
}

// use lends the root key to fn, and keeps Lock waiting for it. fn reads no catalog.
func (r *Root) use(fn func(root []byte) error) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.key == nil {
		return locked()
	}
	return fn(r.key.Bytes())
}

// sealing is what catalog values are sealed under. It outlives a lock.
func (r *Root) sealing() (material, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.values == nil {
		return material{}, locked()
	}
	return material{key: r.values.Bytes(), extracted: true}, nil
}

// adopt takes a root key over, which is the right one. Where one is open already it is kept.
func (r *Root) adopt(key *secret.Key) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.key != nil {
		key.Destroy()
		return nil
	}
	if r.values == nil {
		values, err := catalogKey(key, r.Store)
		if err != nil {
			key.Destroy()
			return err
		}
		r.values = values
	}
	r.key = key
	return nil
}

func catalogKey(root *secret.Key, store uuid.UUID) (*secret.Key, error) {
	values, err := secret.New(shaSize, valuesPurpose(store))
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	secret.Do(func() {
		err = withHash(func(h *hkdfState) error {
			h.extract(values.Bytes(), material{key: root.Bytes()})
			return nil
		})
	})
	if err != nil {
		values.Destroy()
		return nil, err
	}
	return values, nil
}

// Lock wipes the root key once no wrap is in progress. It refuses where nothing could open it again.
func (r *Root) Lock() error {
	r.ways.Lock()
	defer r.ways.Unlock()
	if r.Locked() {
		return nil
	}
	// It bounds itself.
	proven := func(except string) ([]string, error) { return r.provenSlot(context.Background(), except) }
	if err := r.otherWay("", proven); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.key != nil {
		r.key.Destroy()
		r.key = nil
	}
	return nil
}

// openAtStart opens the root key by an automatic slot. Where none opens it, and there is another slot, it stays locked.
func (r *Root) openAtStart() error {
	if r.token != nil {
		return r.startByToken()
	}
	_, failed, err := r.unlockAutomatic(context.Background()) // it bounds itself
	for _, a := range failed {
		r.Failed = append(r.Failed, fmt.Sprintf("slot %s could not open the root key at the start: %v", a.name, a.err))
	}
	if err == nil || r.keyFileFatal(err) {
		return err
	}
	bad, errSlots := r.wholeSlot(KeyFileSlot)
	if errSlots != nil {
		bad = []string{errSlots.Error()}
	}
	switch {
	case bad == nil:
		return nil
	case len(bad) == 0:
		return err
	}
	// No command lists the slots while no daemon runs, so this is where to say why they don't help.
	refused := refusal.From(err)
	return refusal.New(refused.Code, refused.Hint, "%w; %s", err, strings.Join(bad, "; "))
}

// loadFile reads this store's root key from the key file.
func (r *Root) loadFile() (*secret.Key, error) {
	if !exists(r.keyFile) {
		return nil, refusal.New(refusal.Locked,
			fmt.Sprintf("put the root key file of store %s back at %s from its backup, or name it with --root-key; without it only another slot opens the store", r.Store, r.keyFile),
			"the root key file %s is missing, and the store in %s is under a root key", r.keyFile, r.stateDir)
	}
	buf, n, err := readRootFile(r.keyFile)
	if err != nil {
		return nil, err
	}
	defer buf.Destroy()
	var store uuid.UUID
	var key *secret.Key
	secret.Do(func() { store, key, err = parseRootKey(buf.Bytes()[:n]) })
	if err != nil {
		return nil, refusal.New(refusal.Damaged, "put the root key file back from its backup",
			"the root key file %s is damaged: %w", r.keyFile, err)
	}
	if err := r.match(store, key); err != nil {
		key.Destroy()
		return nil, err
	}
	return key, nil
}

func (r *Root) match(store uuid.UUID, key *secret.Key) error {
	if store != r.Store {
		return refusal.New(refusal.Locked, fmt.Sprintf("name the root key file of store %s with --root-key", r.Store),
			"the root key file %s is of store %s, and the store in %s is %s", r.keyFile, store, r.stateDir, r.Store)
	}
	have, err := newHeader(key, store)
	if err != nil {
		return err
	}
	if have.rootID != r.header.rootID {
		return refusal.New(refusal.Locked, "put the root key file back from its backup",
			"the root key file %s names store %s, but its key is not that store's", r.keyFile, store)
	}
	return nil
}
