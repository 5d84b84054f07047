package keystore

import (
	"encoding/binary"

	"github.com/google/uuid"
)

// identity names what a key protects: its parts, each after its length, so that no two identities share their
// bytes (docs/keystore-format.md).
type identity []byte

func newIdentity(label string, store uuid.UUID) identity {
	return identity(nil).text(label).id(store)
}

func (i identity) part(b []byte) identity {
	return append(binary.BigEndian.AppendUint32(i, uint32(len(b))), b...)
}

func (i identity) text(s string) identity   { return i.part([]byte(s)) }
func (i identity) id(u uuid.UUID) identity  { return i.part(u[:]) }
func (i identity) number(n uint32) identity { return i.part(binary.BigEndian.AppendUint32(nil, n)) }
func (i identity) sealing(flags byte) []byte {
	return append(append([]byte{}, i...), blobVersion, flags)
}
