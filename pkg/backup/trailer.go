package backup

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/uuid"
)

const (
	trailerMagic = "NBDCEND\n"
	signatureAt  = trailerSize - ed25519.SignatureSize
	recordAt     = 112
	// signedLabel comes before what is signed, so that no signature of anything else passes for one of a trailer.
	signedLabel = "nbdcrypt backup trailer v1\x00"
	// SignedSize is the length of what is signed.
	SignedSize = len(signedLabel) + signatureAt
)

// Trailer is the end of a backup.
type Trailer struct {
	ID       uuid.UUID
	Manifest Hash
	Written  time.Time
	Public   ed25519.PublicKey
	// Record is the wrapped DEK, empty in a backup of a plain disk.
	Record []byte
}

// Encode gives the trailer's bytes. sign is called with what is to be signed.
func (t Trailer) Encode(sign func(message []byte) (signature []byte, err error)) ([]byte, error) {
	if len(t.Record) > MaxRecord || len(t.Public) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("backup: a record of %d bytes and a key of %d do not fit into a trailer", len(t.Record), len(t.Public))
	}
	p, le := make([]byte, trailerSize), binary.LittleEndian
	copy(p, trailerMagic)
	le.PutUint32(p[8:], Version)
	copy(p[16:], t.ID[:])
	copy(p[32:], t.Manifest[:])
	le.PutUint64(p[64:], uint64(t.Written.Unix()))
	le.PutUint32(p[72:], uint32(len(t.Record)))
	copy(p[80:], t.Public)
	copy(p[recordAt:], t.Record)
	signature, err := sign(signed(p))
	if err != nil {
		return nil, err
	}
	// Whoever signs may have another key than he says.
	if copy(p[signatureAt:], signature) != ed25519.SignatureSize || !ed25519.Verify(t.Public, signed(p), signature) {
		return nil, fmt.Errorf("backup: what was signed does not verify under the key %x", t.Public)
	}
	return p, nil
}

func signed(p []byte) []byte { return append([]byte(signedLabel), p[:signatureAt]...) }

// decodeTrailer reads the trailer of a backup with that header and manifest hash. It counts only if the pinned key signed it.
func decodeTrailer(p []byte, h Header, manifest Hash, pinned ed25519.PublicKey) (t Trailer, err error) {
	le := binary.LittleEndian
	if string(p[:8]) != trailerMagic {
		return t, damaged("at byte %d stands no trailer", h.Body())
	}
	if v, flags := le.Uint32(p[8:]), le.Uint32(p[12:]); v != Version || flags != 0 {
		return t, unknown("the trailer has version %d and flags %#x; this build reads version %d and no flags", v, flags, Version)
	}
	t = Trailer{Written: time.Unix(int64(le.Uint64(p[64:])), 0).UTC(), Public: ed25519.PublicKey(append([]byte{}, p[80:recordAt]...))}
	copy(t.ID[:], p[16:])
	copy(t.Manifest[:], p[32:])
	if !ed25519.Verify(pinned, signed(p), p[signatureAt:]) {
		if !t.Public.Equal(pinned) {
			return t, damaged("the trailer, at byte %d, is signed under the key %x, and not under the pinned one, %x", h.Body(), []byte(t.Public), []byte(pinned))
		}
		return t, damaged("the trailer, bytes %d to %d, is not as it was signed", h.Body(), h.Length()-1)
	}
	n := int(le.Uint32(p[72:]))
	switch {
	case t.ID != h.ID || t.Manifest != manifest:
		return t, damaged("the trailer, at byte %d, is of another backup than the pages before it: %s with the manifest hash %s, not %s with %s", h.Body(), t.ID, t.Manifest, h.ID, manifest)
	case !t.Public.Equal(pinned), n > MaxRecord, (n > 0) != h.Encrypted, !allZero(p[76:80]), !allZero(p[recordAt+min(n, MaxRecord) : signatureAt]):
		return t, unknown("the trailer, at byte %d, says what this build does not know", h.Body())
	}
	t.Record = append([]byte{}, p[recordAt:recordAt+n]...)
	return t, nil
}
