package keystore

import (
	"context"
	"errors"
	"fmt"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
	"nbdcrypt/pkg/token"
)

// A store that a token holds has its root key on the token, which it never leaves: the token wraps and unwraps each CMK, around what the store
// wraps by itself. In the place of the root key the store has a local key, which seals the catalog, takes part in every wrap, and lies in the header under the
// token's key. So a CMK opens with the token, the header and its erase key together, and what passes the token is ciphertext.

// TokenSlot is the id, kind and name of the one slot of such a store.
const TokenSlot = "token"

// flagToken is the flag of a blob that a token's key sealed.
const flagToken = 1

// tokenKey is a key on a token, a token.Key. None of its methods takes longer than a few seconds.
type tokenKey interface {
	URI() token.URI
	Make(ctx context.Context) (made bool, err error)
	Find(ctx context.Context) (words string, err error)
	Seal(ctx context.Context, data, aad []byte) (token.Mechanism, []byte, error)
	Open(ctx context.Context, dst []byte, m token.Mechanism, sealed, aad []byte) error
}

// newToken names a key on a token. Tests have tokens of their own.
var newToken = func(uri token.URI) tokenKey { return token.New(uri) }

// parseToken reads a URI that a person gave.
func parseToken(s, stateDir string) (tokenKey, error) {
	uri, err := token.Parse(s)
	if err != nil {
		return nil, refusal.New(refusal.Usage, "write it as pkcs11:token=LABEL;object=KEY?module-path=/PATH/LIBRARY.so&pin-source=file:/PATH/PIN",
			"%.300q does not name a key on a token: %w", s, err)
	}
	if uri.PINFile == "" {
		return newToken(uri), nil
	}
	in, err := inside(uri.PINFile, stateDir)
	if in {
		err = refusal.New(refusal.Locked, "keep it elsewhere; a backup of one must not be a backup of both",
			"the file %s with the token's PIN lies inside the state directory %s", uri.PINFile, stateDir)
	}
	return newToken(uri), err
}

// notNow tells an error that says nothing about what is stored: another time it may open.
func notNow(err error) bool { return errors.Is(err, errLocked) || errors.Is(err, token.ErrAway) }

func (h header) localIdentity() identity { return newIdentity("nbdcrypt/v1/token-local", h.store) }

// sealLocal makes the header of a store that the token holds, out of its local key.
func (r *Root) sealLocal() (err error) {
	ctx := context.Background() // each operation of a token bounds itself
	if _, err = r.token.Make(ctx); err != nil {
		return err
	}
	if r.header.local, err = r.sealByToken(r.header.localIdentity(), r.key.Bytes()); err != nil {
		return err
	}
	r.header.token = r.token.URI().Name()
	again, err := r.openLocal(ctx)
	if err != nil {
		return fmt.Errorf("what the token sealed it does not open: %w", err)
	}
	again.Destroy()
	return nil
}

// openLocal has the token open the local key that the header holds.
func (r *Root) openLocal(ctx context.Context) (*secret.Key, error) {
	key, err := secret.New(keySize, rootPurpose(r.Store))
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	err = r.openByToken(ctx, key.Bytes(), r.header.localIdentity(), r.header.local)
	if errors.Is(err, errBlob) {
		err = refusal.New(refusal.Locked, "name the key "+r.header.token+" with --root-key, or restore it on the token from its backup",
			"the key %s is another one than that which holds this store", r.token.URI().Name())
	}
	if err == nil {
		err = r.checkRoot(key)
	}
	if err != nil {
		key.Destroy()
		return nil, err
	}
	return key, nil
}

// sealByToken has the token's key seal a blob for id.
func (r *Root) sealByToken(id identity, plain []byte) ([]byte, error) {
	m, sealed, err := r.token.Seal(context.Background(), plain, id.sealing(flagToken))
	if err != nil {
		return nil, err
	}
	if m != token.AESGCM || len(sealed) != len(plain)+blobOverhead-2 {
		return nil, fmt.Errorf("%w: it sealed %d bytes with %s to %d", token.ErrAway, len(plain), m, len(sealed))
	}
	return append([]byte{blobVersion, flagToken}, sealed...), nil
}

func (r *Root) openByToken(ctx context.Context, dst []byte, id identity, blob []byte) error {
	if len(blob) != len(dst)+blobOverhead || blob[0] != blobVersion || blob[1] != flagToken {
		return fmt.Errorf("%w: it is not what the token sealed", errBlob)
	}
	err := r.token.Open(ctx, dst, token.AESGCM, blob[2:], id.sealing(flagToken))
	if errors.Is(err, token.ErrAltered) {
		err = fmt.Errorf("%w: %w", errBlob, err)
	}
	return err
}

// wrapOuter puts the token's wrap around that of the store, where a token holds it. It holds no lock: a token may take its time.
func (r *Root) wrapOuter(id identity, wrapped []byte) ([]byte, error) {
	if r.token == nil {
		return wrapped, nil
	}
	return r.sealByToken(id, wrapped)
}

// unwrapOuter takes that off again.
func (r *Root) unwrapOuter(id identity, wrapped []byte) ([]byte, error) {
	if r.token == nil {
		return wrapped, nil
	}
	if err := r.needOpen(); err != nil {
		return nil, err // before the token is asked for what would not help
	}
	inner := make([]byte, max(0, len(wrapped)-blobOverhead))
	return inner, r.openByToken(context.Background(), inner, id, wrapped)
}

// checkHolder refuses to open a store by other means than those that it was made with.
func (r *Root) checkHolder() error {
	switch {
	case r.header.local != nil && r.token == nil:
		return refusal.New(refusal.Locked, "name that key with --root-key '"+r.header.token+"?module-path=/PATH/LIBRARY.so&pin-source=file:/PATH/PIN'",
			"the store in %s is held by the key %s on a token; no root key file opens it", r.stateDir, r.header.token)
	case r.header.local == nil && r.token != nil:
		return refusal.New(refusal.Locked, "name its root key file with --root-key; a token can open it as a slot: `nbdcrypt root slot add --help`",
			"the store in %s is under a root key of its own; only a new store can be held by a token", r.stateDir)
	}
	return nil
}

// unlockToken opens the local key.
func (r *Root) unlockToken(ctx context.Context) (slot string, err error) {
	key, err := r.openLocal(ctx)
	if err != nil {
		return "", fullRefusal(err)
	}
	return TokenSlot, r.adopt(key)
}

// startByToken opens the local key at a start, which stays locked where the token is away: it may come later.
func (r *Root) startByToken() error {
	_, err := r.unlockToken(context.Background())
	if errors.Is(err, token.ErrAway) {
		r.Failed = append(r.Failed, err.Error())
		return nil
	}
	return err
}

// Holder names the key on a token that holds the store; it is empty for a store with a root key of its own.
func (r *Root) Holder() string {
	if r.token == nil {
		return ""
	}
	return r.token.URI().Name()
}

// noSlots refuses to add a slot to a store that a token holds, or to take that one away.
func (r *Root) noSlots() error {
	if r.token == nil {
		return nil
	}
	return refusal.New(refusal.Busy, "back up the token instead, as its vendor says",
		"this store is held by the key %s: its keys open by that token alone, and no other slot could take its place", r.Holder())
}

// tokenInfo asks the token.
func (r *Root) tokenInfo() SlotInfo {
	i := SlotInfo{ID: TokenSlot, Kind: TokenSlot, Name: TokenSlot, Automatic: true}
	words, err := r.token.Find(context.Background())
	if err != nil {
		i.Detail = "it opens nothing: " + err.Error()
		return i
	}
	i.Present, i.Detail = true, fmt.Sprintf("%s: %s", r.Holder(), words)
	return i
}
