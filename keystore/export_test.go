package keystore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

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
	s := slot{store: r.Store, id: uuid.New(), kind: kindPassphrase, name: "forged", created: time.Unix(1e9, 0).UTC(), way: passphraseWay{newCost, make([]byte, saltSize)}}
	wrapping, err := s.way.release(ctx, pass)
	if err != nil {
		return err
	}
	defer wrapping.Destroy()
	if err := forger.wrapRoot(&s, wrapping); err != nil {
		return err
	}
	b, err := s.encode()
	if err != nil {
		return err
	}
	return errors.Join(r.prepareSlots(), os.WriteFile(r.slotPath(s.id), b, 0o600))
}

// WithErase makes s work on another erase file from now on, and returns the one before.
func (s *Store) WithErase(f *os.File) (before *os.File) {
	before, s.erase.f = s.erase.f, f
	return before
}

// UnlockFile opens the root key by the key file alone.
func (r *Root) UnlockFile() error {
	key, err := r.loadFile()
	if err != nil {
		return fullRefusal(err)
	}
	return r.adopt(key)
}

// FullRecord is the size of a CMK's record with all that may be in it.
func FullRecord() int {
	rec := cmkRecord{Version: recordVersion, ID: uuid.Max, Alias: strings.Repeat("x", 255), Project: strings.Repeat("p", 64), Region: strings.Repeat("r", 64),
		State: PendingDeletion, Origin: OriginGenerated, Slot: math.MaxInt64, Description: strings.Repeat("\"", MaxDescription), Tags: map[string]string{}}
	for i := range MaxTags {
		rec.Tags[fmt.Sprintf("%03d", i)+strings.Repeat("t", 125)] = strings.Repeat("\"", MaxTagValue)
	}
	at := time.Date(2026, 11, 22, 9, 0, 0, 123456789, time.UTC)
	rec.Created, rec.Deletion, rec.RotationDays, rec.RotationFrom = at, &at, 365, &at
	for i := range MaxVersions {
		rec.Versions = append(rec.Versions, cmkVersion{uint32(i), at, make([]byte, keySize+blobOverhead)})
	}
	b, err := json.Marshal(rec)
	if err != nil {
		panic(err)
	}
	return len(b)
}
