package keystore

import (
	"github.com/google/uuid"

	"nbdcrypt/pkg/secret"
)

// RootKeyText is the text of a root key file.
func RootKeyText(store uuid.UUID, key *secret.Key) []byte {
	b := make([]byte, maxTextFile)
	return b[:writeText(b, rootKind, "key", store, key.Bytes())]
}
