package keystore

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/child"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

// ImportParameters are what somebody who has key material wraps it with, and brings back with it.
type ImportParameters struct {
	// WrappingKey is an RSA public key as PEM.
	WrappingKey, Token []byte
	Until              time.Time
}

// newWrappingKey is a variable because tests need many, and each takes a second.
var newWrappingKey = child.RSAKey

// PrepareImport makes the parameters for importing key material into a CMK (rule B7). They are good for a day, and those made before
// are not any more.
func (s *Store) PrepareImport(ctx context.Context, project, ref string) (p ImportParameters, key Info, err error) {
	rec, err := s.importable(ctx, project, ref)
	if err != nil {
		return p, key, err
	}
	public, private, err := newWrappingKey(ctx)
	if err != nil {
		return p, key, err
	}
	defer private.Destroy()
	t := importToken{store: s.c.Root.Store, cmk: rec.ID, id: uuid.New(), until: s.c.Clock.Now().Add(tokenTime).UTC().Truncate(time.Second)}
	p = ImportParameters{WrappingKey: public, Until: t.until}
	if p.Token, err = s.sealToken(t, rec, private); err != nil {
		return p, key, err
	}
	// An id of its own: a call that is repeated must get parameters that are the newest.
	key, err = s.change(ctx, "import-"+t.id.String(), project, rec.ID.String(), Import, func(_ catalog.Txn, rec *cmkRecord) error {
		now := importState{}
		if rec.Import != nil {
			now = *rec.Import
		}
		now.Parameters, now.Until = t.id, t.until
		rec.Import = &now
		return nil
	})
	return p, key, err
}

// importable finds a CMK that material can be imported into, while the root key is open.
func (s *Store) importable(ctx context.Context, project, ref string) (rec cmkRecord, err error) {
	err = s.c.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		if rec, err = s.find(r, project, ref); err != nil {
			return err
		}
		return rec.may(Import)
	})
	if err != nil {
		return rec, damaged(err)
	}
	return rec, s.c.Root.needOpen()
}

// Material is key material on its way in.
type Material struct {
	Token, Wrapped []byte
	// Expires is when it is deleted again; nil for never.
	Expires *time.Time
}

// ImportMaterial takes key material into a CMK. Once a CMK has had some, only the same bytes are taken: with any other nothing of what
// is under it would open. Where the material is there already only its expiry changes.
func (s *Store) ImportMaterial(ctx context.Context, request, project, ref string, m Material) (Info, error) {
	s.making.Lock()
	defer s.making.Unlock()
	if done, err := s.c.Catalog.Outcome(ctx, request); err != nil || done {
		if err != nil {
			return Info{}, damaged(err)
		}
		return s.Key(ctx, project, ref)
	}
	rec, err := s.importable(ctx, project, ref)
	if err == nil && rec.erasing() {
		rec, err = s.finishMaterial(ctx, rec)
	}
	if err != nil {
		return Info{}, err
	}
	if m.Expires != nil && !m.Expires.After(s.c.Clock.Now()) {
		return Info{}, refusal.New(refusal.Usage, "give a time that is still to come", "key material can't expire at %s, which is past", date(m.Expires))
	}
	key, fingerprint, err := s.unwrapMaterial(ctx, rec, m)
	if err != nil {
		return Info{}, err
	}
	defer key.Destroy()
	if len(rec.Versions) > 0 {
		return s.commitImport(ctx, request, rec, fingerprint, m, cmkVersion{})
	}
	return s.placeMaterial(ctx, request, rec, key, fingerprint, m)
}

// unwrapMaterial opens what came, and refuses what is not the CMK's. The key is the caller's to destroy.
func (s *Store) unwrapMaterial(ctx context.Context, rec cmkRecord, m Material) (key *secret.Key, fingerprint []byte, err error) {
	t, err := parseImportToken(m.Token)
	if err != nil {
		return nil, nil, badToken("the import token is damaged: %w", err)
	}
	if err := s.checkToken(t, rec); err != nil {
		return nil, nil, err
	}
	private, err := s.openToken(t, rec)
	if err != nil {
		return nil, nil, err
	}
	defer private.Destroy()
	key, err = child.RSAUnwrap(ctx, private, m.Wrapped, rec.purpose())
	if err != nil {
		return nil, nil, badMaterial(err)
	}
	fingerprint, err = s.fingerprint(rec, key)
	if err == nil && rec.Import.Fingerprint != nil && !bytes.Equal(fingerprint, rec.Import.Fingerprint) {
		err = refusal.New(refusal.KeyForbids, "import the same bytes as the first time; for others make another key with `nbdcrypt key create ALIAS --origin imported`",
			"key %s has had other key material, and only the same can be imported again", rec.name())
	}
	if err != nil {
		key.Destroy()
		return nil, nil, err
	}
	return key, fingerprint, nil
}

func badToken(format string, args ...any) error {
	return refusal.New(refusal.Usage, "give the file import-token that `nbdcrypt key import KEY --prepare DIR` wrote for this key, as it is", format, args...)
}

// badMaterial makes a refusal of what does not unwrap.
func badMaterial(err error) error {
	var length child.WrongLength
	switch {
	case errors.As(err, &length):
		return refusal.New(refusal.Usage, "wrap the 32 bytes of the key as they are, not their text in hex or base64", "the key material has the wrong length: %w", err)
	case errors.Is(err, child.ErrNotWrapped):
		return refusal.New(refusal.Usage, "wrap it with the wrapping-key.pem that was written beside this token: openssl pkeyutl -encrypt -pubin -inkey wrapping-key.pem "+
			"-pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256", "the key material can't be unwrapped: %w", err)
	}
	return err
}

// checkToken refuses a token that is not for now, or not for this CMK.
func (s *Store) checkToken(t importToken, rec cmkRecord) error {
	again := "run `nbdcrypt key import " + rec.Alias + " --prepare DIR` and wrap the key material anew"
	switch {
	case t.store != s.c.Root.Store:
		return badToken("the import token is of store %s, and this is store %s", t.store, s.c.Root.Store)
	case t.cmk != rec.ID:
		return badToken("the import token is for key %s, not for key %s", t.cmk, rec.name())
	case rec.Import == nil || rec.Import.Parameters != t.id:
		return refusal.New(refusal.KeyForbids, "use the newest, or "+again, "the import token is not the newest of key %s, and only that one is good", rec.name())
	case !s.c.Clock.Now().Before(t.until):
		return refusal.New(refusal.KeyForbids, again, "the import token of key %s has expired on %s", rec.name(), date(&t.until))
	}
	return nil
}

// fingerprint tells key material of a CMK from any other, without telling anything of it.
func (s *Store) fingerprint(c cmkRecord, key *secret.Key) (sum []byte, err error) {
	sum = make([]byte, shaSize)
	id := newIdentity("nbdcrypt/v1/material", s.c.Root.Store).text(c.Region).text(c.Project).id(c.ID)
	secret.Do(func() {
		err = withHash(func(h *hkdfState) error { return h.derive(sum, material{key: key.Bytes()}, id) })
	})
	return sum, err
}

// placeMaterial wraps key material under an erase key of its own. That is durable before the record names it; where the commit
// fails for certain it is given back.
func (s *Store) placeMaterial(ctx context.Context, request string, rec cmkRecord, key *secret.Key, fingerprint []byte, m Material) (Info, error) {
	slot, eraseKey, err := s.erase.allocate(rec.ID)
	if err != nil {
		return Info{}, noRoomForKey(err)
	}
	defer eraseKey.Destroy()
	rec.Slot = slot
	v := cmkVersion{Number: 1, Created: s.c.Clock.Now()}
	var info Info
	if v.Wrapped, err = s.wrapCMK(rec, v.Number, eraseKey, key); err == nil {
		info, err = s.commitImport(ctx, request, rec, fingerprint, m, v)
	}
	if err != nil && !errors.Is(err, catalog.ErrUnknownOutcome) {
		err = errors.Join(err, s.erase.destroy(slot, rec.ID))
	}
	return info, err
}

// commitImport notes what was imported, with the version that is new, where one is.
func (s *Store) commitImport(ctx context.Context, request string, was cmkRecord, fingerprint []byte, m Material, v cmkVersion) (Info, error) {
	return s.change(ctx, request, was.Project, was.ID.String(), Import, func(_ catalog.Txn, rec *cmkRecord) error {
		now := *rec.Import
		if now.Parameters != was.Import.Parameters {
			return refusal.New(refusal.KeyForbids, "use the newest import token", "newer import parameters of key %s were made meanwhile", rec.name())
		}
		now.Fingerprint, now.Expires = fingerprint, m.Expires
		rec.Import = &now
		if v.Number > 0 {
			rec.Slot, rec.Versions, rec.State = was.Slot, []cmkVersion{v}, Enabled
		}
		return nil
	})
}
