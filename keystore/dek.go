package keystore

import (
	"bytes"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

const (
	// DEKSize is the length of a data encryption key: the data key, then the tweak key.
	DEKSize = 64
	// Cipher names how disks are encrypted, in the words of dm-crypt.
	Cipher = "aes-xts-plain64"
)

// Holder is what a DEK record belongs to: a disk, a snapshot, an image.
type Holder struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
}

// Record is a wrapped DEK as the catalog holds it, for PutDEK. Nothing in it is secret without the CMK.
type Record struct {
	Version    int       `json:"v"`
	Project    string    `json:"project"`
	Holder     Holder    `json:"holder"`
	Layer      string    `json:"layer"`
	CMK        uuid.UUID `json:"cmk"`
	CMKVersion uint32    `json:"cmk_version"`
	Cipher     string    `json:"cipher"`
	SectorSize int       `json:"sector_size"`
	Blob       []byte    `json:"blob"`
}

// purpose is why a DEK is in memory as it is, from unwrapping until it is expanded or given out.
func (r Record) purpose() secret.Purpose {
	return secret.Purpose{Kind: "dek", ID: r.Layer, For: "wrapping or unwrapping it for " + r.Holder.Kind + " " + r.Holder.ID}
}

// KeyVersionRef names the version of a CMK that unwrapped a DEK.
type KeyVersionRef struct {
	ID      string
	Alias   string
	Version int
}

// String is what the audit log names.
func (k KeyVersionRef) String() string { return fmt.Sprintf("%s/%d", k.ID, k.Version) }

func dekPrefix(h Holder) string            { return "dek/" + h.Kind + "/" + h.ID + "/" }
func dekKey(h Holder, layer string) string { return dekPrefix(h) + layer }

func checkPlace(h Holder, layer string) error {
	for _, part := range []string{h.Kind, h.ID, layer} {
		if part == "" || len(part) > 100 || strings.Contains(part, "/") {
			return fmt.Errorf("keystore: %q can't be part of a DEK's name", part)
		}
	}
	return nil
}

// identity is what the wrapping key is bound to (rule C3).
func (r Record) identity(store uuid.UUID) identity {
	return newIdentity("nbdcrypt/v1/dek", store).text(r.Project).text(r.Holder.Kind).text(r.Holder.ID).text(r.Layer).
		id(r.CMK).number(r.CMKVersion).text(r.Cipher).number(uint32(r.SectorSize))
}

// GenerateDEK makes a DEK and wraps it under the CMK that keyRef names (the project's default key where it is
// empty). It refuses a CMK that is not usable now rather than at attach (rule C13), and opens its own blob before
// it answers. The caller commits the record with PutDEK.
func (s *Store) GenerateDEK(ctx context.Context, project, keyRef string, h Holder, layer string, sectorSize int) (Record, error) {
	return s.generateDEK(ctx, project, h, layer, sectorSize, func(r catalog.Reader) (cmkRecord, error) { return s.find(r, project, keyRef) })
}

// GenerateDEKUnder is GenerateDEK for another layer of what is under a CMK already, which is named by its id.
func (s *Store) GenerateDEKUnder(ctx context.Context, project, id string, h Holder, layer string, sectorSize int) (Record, error) {
	return s.generateDEK(ctx, project, h, layer, sectorSize, func(r catalog.Reader) (cmkRecord, error) { return under(r, project, id) })
}

func (s *Store) generateDEK(ctx context.Context, project string, h Holder, layer string, sectorSize int, find func(catalog.Reader) (cmkRecord, error)) (rec Record, err error) {
	if err := checkPlace(h, layer); err != nil {
		return rec, err
	}
	var cmk cmkRecord
	err = s.c.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		if err := s.needGrant(r, project); err != nil {
			return err
		}
		if cmk, err = find(r); err != nil {
			return err
		}
		return cmk.usable()
	})
	if err != nil {
		return rec, damaged(err)
	}
	rec = Record{recordVersion, project, h, layer, cmk.ID, cmk.newest().Number, Cipher, sectorSize, nil}
	dek, err := randomDEK(rec)
	if err != nil {
		return rec, err
	}
	defer dek.Destroy()
	if err := s.wrapDEK(cmk, &rec, dek); err != nil {
		return Record{}, damaged(s.changedMeanwhile(ctx, cmk, rec, err))
	}
	return rec, nil
}

// randomDEK draws until the two keys of XTS differ (rule C19).
func randomDEK(rec Record) (*secret.Key, error) {
	for {
		dek, err := secret.RandomWork(DEKSize, rec.purpose())
		if err != nil {
			return nil, fmt.Errorf("keystore: %w", err)
		}
		if distinctHalves(dek.Bytes()) {
			return dek, nil
		}
		dek.Destroy()
	}
}

func distinctHalves(dek []byte) (distinct bool) {
	secret.Do(func() { distinct = subtle.ConstantTimeCompare(dek[:DEKSize/2], dek[DEKSize/2:]) == 0 })
	return distinct
}

func (s *Store) wrapDEK(cmk cmkRecord, rec *Record, dek *secret.Key) error {
	return s.withCMK(cmk, rec.CMKVersion, func(key []byte) (err error) {
		id := rec.identity(s.c.Root.Store)
		if rec.Blob, err = sealBlob(material{key: key}, id, dek.Bytes()); err != nil {
			return err
		}
		again, err := secret.Work(DEKSize, rec.purpose())
		if err != nil {
			return fmt.Errorf("keystore: %w", err)
		}
		defer again.Destroy()
		if err := openBlob(again.Bytes(), material{key: key}, id, rec.Blob); err != nil {
			return err
		}
		same := false
		secret.Do(func() { same = again.Equal(dek) })
		if !same {
			return fmt.Errorf("%w: a new blob opens to another key", errBlob)
		}
		return nil
	})
}

// PutDEK writes a record in the caller's transaction on the sealed catalog, in the place of one that is there.
func PutDEK(t catalog.Txn, rec Record) error {
	if err := dropUse(t, rec.Holder, rec.Layer); err != nil {
		return err
	}
	if err := t.Put(rec.usesKey(), nil); err != nil {
		return err
	}
	return putJSON(t, dekKey(rec.Holder, rec.Layer), rec)
}

// DropDEKs removes a holder's records of these layers in the caller's transaction. It needs no key (rule C12).
func DropDEKs(t catalog.Txn, h Holder, layers ...string) error {
	for _, layer := range layers {
		if err := dropUse(t, h, layer); err != nil {
			return err
		}
		if err := t.Delete(dekKey(h, layer)); err != nil {
			return err
		}
	}
	return nil
}

// HeldLayers are the layers that a holder has DEK records for, those that can't be read too.
func HeldLayers(r catalog.Reader, h Holder) (layers []string, err error) {
	prefix := dekPrefix(h)
	err = catalog.EachName(r, prefix, func(key string) error {
		layers = append(layers, key[len(prefix):])
		return nil
	})
	return layers, err
}

// UnwrapDEK opens the DEK of a holder's layer, if the project has the rights and its CMK's state allows. The key is
// the caller's to destroy.
func (s *Store) UnwrapDEK(ctx context.Context, project string, h Holder, layer string, sectorSize int) (*secret.Key, KeyVersionRef, error) {
	var rec Record
	var cmk cmkRecord
	err := s.c.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		if err := s.needGrant(r, project); err != nil {
			return err
		}
		if rec, err = readDEK(r, h, layer); err != nil {
			return err
		}
		if rec.Project != project || rec.SectorSize != sectorSize {
			return fmt.Errorf("%w: record %q is of project %s and sectors of %d bytes, not %s and %d", catalog.ErrDamaged,
				dekKey(h, layer), rec.Project, rec.SectorSize, project, sectorSize)
		}
		if cmk, err = s.cmkOf(r, rec); err != nil {
			return err
		}
		return cmk.usable()
	})
	if err != nil {
		return nil, KeyVersionRef{}, damaged(err)
	}
	dek, err := s.openDEK(cmk, rec)
	if err != nil {
		err = s.changedMeanwhile(ctx, cmk, rec, err)
	}
	return dek, KeyVersionRef{cmk.ID.String(), cmk.Alias, int(rec.CMKVersion)}, damaged(err)
}

// changedMeanwhile tells a CMK whose material was destroyed between reading its record and using it from one that is damaged.
func (s *Store) changedMeanwhile(ctx context.Context, was cmkRecord, rec Record, failed error) error {
	var now cmkRecord
	err := s.c.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		if now, err = s.cmkOf(r, rec); err != nil {
			return err
		}
		return now.usable()
	})
	if err != nil {
		return err
	}
	if !bytes.Equal(now.Versions[0].Wrapped, was.Versions[0].Wrapped) {
		return refusal.New(refusal.Busy, "try again", "the key material of key %s was deleted and imported again meanwhile", now.name())
	}
	return failed
}

// readDEK reads a record and holds it against the place where it lies.
func readDEK(r catalog.Reader, h Holder, layer string) (rec Record, err error) {
	key := dekKey(h, layer)
	b, err := r.Get(key)
	if errors.Is(err, catalog.ErrNotFound) {
		return rec, fmt.Errorf("%w: record %q is missing", catalog.ErrDamaged, key)
	}
	if err != nil {
		return rec, err
	}
	return parseDEK(key, b)
}

func parseDEK(key string, b []byte) (rec Record, err error) {
	if err := decodeJSON(key, b, &rec); err != nil {
		return rec, err
	}
	switch {
	case rec.Version != recordVersion:
		err = fmt.Errorf("it has version %d, this build reads version %d", rec.Version, recordVersion)
	case rec.Cipher != Cipher:
		err = fmt.Errorf("its cipher is %q, this build knows %s", rec.Cipher, Cipher)
	case dekKey(rec.Holder, rec.Layer) != key:
		err = fmt.Errorf("it belongs at %q", dekKey(rec.Holder, rec.Layer))
	default:
		return rec, nil
	}
	return rec, fmt.Errorf("%w: record %q: %w", catalog.ErrDamaged, key, err)
}

func (s *Store) cmkOf(r catalog.Reader, rec Record) (cmkRecord, error) {
	cmk, err := readCMK(r, cmkKey(rec.Project, rec.CMK.String()))
	if errors.Is(err, catalog.ErrNotFound) || err == nil && cmk.State == Deleting {
		return cmk, refusal.New(refusal.KeyForbids, "nothing opens it any more; it can be deleted",
			"the key %s of %s %s is deleted", rec.CMK, rec.Holder.Kind, rec.Holder.ID)
	}
	return cmk, err
}

func (s *Store) openDEK(cmk cmkRecord, rec Record) (*secret.Key, error) {
	dek, err := secret.Work(DEKSize, rec.purpose())
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	err = s.withCMK(cmk, rec.CMKVersion, func(key []byte) error {
		return openBlob(dek.Bytes(), material{key: key}, rec.identity(s.c.Root.Store), rec.Blob)
	})
	if err == nil && !distinctHalves(dek.Bytes()) {
		err = fmt.Errorf("%w: its two keys are equal", errBlob)
	}
	if err != nil {
		dek.Destroy()
		return nil, fmt.Errorf("the DEK of %s %s, layer %s: %w", rec.Holder.Kind, rec.Holder.ID, rec.Layer, err)
	}
	return dek, nil
}
