package keystore

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/google/uuid"

	"nbdcrypt/pkg/child"
	"nbdcrypt/pkg/secret"
)

// RootKeyText is the text of a root key file.
func RootKeyText(store uuid.UUID, key *secret.Key) []byte {
	b := make([]byte, maxTextFile)
	n, err := writeText(b, rootKind, "key", store, key.Bytes())
	if err != nil {
		panic(err)
	}
	return b[:n]
}

// OpenedRoot is an open root key without files.
func OpenedRoot(key *secret.Key, store uuid.UUID) *Root {
	values, err := catalogKey(key, store)
	if err != nil {
		panic(err)
	}
	return &Root{Store: store, key: key, values: values}
}

// Key is the root key.
func (r *Root) Key() *secret.Key { return r.key }

// Product sets the costs of passphrases to those of the product until the returned function is called. Other tests run with
// costs that no product file may have.
func Product() (cheap func()) {
	new, least := newCost, leastCost
	newCost, leastCost = productCost, productLeast
	return func() { newCost, leastCost = new, least }
}

var productCost, productLeast = newCost, leastCost

func makeCheap() {
	newCost = child.Params{Time: 1, Memory: 64, Lanes: 4}
	leastCost = newCost
}

func TestMain(m *testing.M) {
	if !child.Main() {
		makeCheap()
		os.Exit(m.Run())
	}
}

// ForgeSlot makes a slot of r's store that holds another key than the store's.
func (r *Root) ForgeSlot(ctx context.Context, pass, key *secret.Key) error {
	forger := &Root{Store: r.Store, key: key}
	s, err := forger.wrapRoot(ctx, "forged", pass)
	if err != nil {
		return err
	}
	b, err := s.encode()
	if err != nil {
		return err
	}
	return errors.Join(r.prepareSlots(), os.WriteFile(r.slotPath(s.id), b, 0o600))
}

// WithErase makes s work on another erase file from now on.
func (s *Store) WithErase(f *os.File) { s.erase.f = f }
