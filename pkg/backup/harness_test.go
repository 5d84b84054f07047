package backup

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/pkg/refusal"
)

// signer is a store's key, the same in every run.
var signer = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))

func public(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

func signBy(key ed25519.PrivateKey) func([]byte) ([]byte, error) {
	return func(p []byte) ([]byte, error) { return ed25519.Sign(key, p), nil }
}

func header(size int64) Header {
	return Header{ID: uuid.New(), Store: uuid.New(), Disk: uuid.New(), Encrypted: true, Size: size, Taken: time.Unix(2e9, 0).UTC(), SectorSize: 512,
		DiskName: "db1", Name: "monday", Project: "default"}
}

// fillByBlock gives each block of a disk a content of its own. Offsets are whole blocks.
func fillByBlock(p []byte, off int64) error {
	for i := range p {
		p[i] = byte(i)
		if i%BlockSize < 8 {
			p[i] = byte((off + int64(i)) / BlockSize >> (i % BlockSize * 8))
		}
	}
	return nil
}

// made is a backup in memory.
type made struct {
	Verified
	bytes []byte
}

// makeBackup writes a backup of these extents.
func makeBackup(t testing.TB, h Header, extents ...Extent) made {
	t.Helper()
	return makeBackupOf(t, h, fillByBlock, extents...)
}

func makeBackupOf(t testing.TB, h Header, fill Fill, extents ...Extent) made {
	t.Helper()
	path := filepath.Join(t.TempDir(), "backup")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := NewWriter(t.Context(), f, h, fill, func(int64) {})
	defer w.Close()
	for _, e := range extents {
		if err := w.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	h, manifest, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	v := Verified{Header: h, Manifest: manifest, Trailer: Trailer{ID: h.ID, Manifest: manifest, Written: h.Taken, Public: public(signer)}}
	if h.Encrypted {
		v.Trailer.Record = []byte(`{"v":1}`)
	}
	tail, err := v.Trailer.Encode(signBy(signer))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(b)) != h.Body() {
		t.Fatalf("the body has %d bytes, the header says %d", len(b), h.Body())
	}
	return made{v, append(b, tail...)}
}

// seal makes the sum at the end of a header or page fit again, as whoever forges one would.
func seal(p []byte) {
	sum := hashOf(p[:len(p)-hashSize])
	copy(p[len(p)-hashSize:], sum[:])
}

func verify(b []byte) (Verified, error) { return verifyBy(b, public(signer)) }

func verifyBy(b []byte, key ed25519.PublicKey) (Verified, error) {
	return Verify(context.Background(), bytes.NewReader(b), key, nil)
}

func wantDamaged(t *testing.T, what string, err error) {
	t.Helper()
	var r *refusal.Error
	if !errors.As(err, &r) || r.Code != refusal.Damaged || r.Hint == "" {
		t.Errorf("%s: %v", what, err)
	}
}
