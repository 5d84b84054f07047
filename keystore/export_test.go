package keystore

import (
	"os"

	"github.com/google/uuid"

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

// WithErase makes s work on another erase file from now on.
func (s *Store) WithErase(f *os.File) { s.erase.f = f }
