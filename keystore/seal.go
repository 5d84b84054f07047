package keystore

import (
	"context"
	"fmt"

	"nbdcrypt/pkg/catalog"
)

// sealer seals catalog values, each under a key of its own name.
type sealer struct{ root *Root }

func (s sealer) identity(name string) identity {
	return newIdentity("nbdcrypt/v1/catalog", s.root.Store).text(name)
}

func (s sealer) seal(name string, value []byte) ([]byte, error) {
	m, err := s.root.sealing()
	if err != nil {
		return nil, err
	}
	return sealBlob(m, s.identity(name), value)
}

func (s sealer) open(name string, blob []byte) ([]byte, error) {
	m, err := s.root.sealing()
	if err != nil {
		return nil, err
	}
	plain := make([]byte, max(0, len(blob)-blobOverhead))
	if err := openBlob(plain, m, s.identity(name), blob); err != nil {
		return nil, damagedRecord{name, err}
	}
	return plain, nil
}

// damagedRecord is a value that does not open.
type damagedRecord struct {
	key string
	err error
}

func (d damagedRecord) Error() string {
	return fmt.Sprintf("%v: record %q: %v", catalog.ErrDamaged, d.key, d.err)
}

func (d damagedRecord) Unwrap() []error { return []error{catalog.ErrDamaged, d.err} }

// Seal decorates a catalog so that the store below sees names and ciphertext. A value is bound to its name and
// to the store; one that does not open is catalog.ErrDamaged, with its name. Values may be MaxSealed long.
// Export and Import pass the ciphertext on: what is exported opens only under the same root key and store. Once the
// root key was open, values are read and written while it is locked too.
func Seal(store catalog.Store, root *Root) catalog.Store { return sealedStore{store, sealer{root}} }

// MaxSealed is the longest value that fits a catalog once it is sealed.
const MaxSealed = catalog.MaxValue - blobOverhead

type sealedStore struct {
	catalog.Store
	sealer
}

// View implements catalog.Store.
func (s sealedStore) View(ctx context.Context, fn func(catalog.Reader) error) error {
	return s.Store.View(ctx, func(r catalog.Reader) error { return fn(sealedReader{r, s.sealer}) })
}

// Update implements catalog.Store.
func (s sealedStore) Update(ctx context.Context, request string, fn func(catalog.Txn) error) error {
	return s.Store.Update(ctx, request, func(t catalog.Txn) error {
		return fn(sealedTxn{sealedReader{t, s.sealer}, t})
	})
}

type sealedReader struct {
	below catalog.Reader
	sealer
}

// Get implements catalog.Reader.
func (r sealedReader) Get(key string) ([]byte, error) {
	blob, err := r.below.Get(key)
	if err != nil {
		return nil, err
	}
	return r.open(key, blob)
}

// Scan implements catalog.Reader.
func (r sealedReader) Scan(prefix, after string, limit int) ([]catalog.Pair, error) {
	pairs, err := r.below.Scan(prefix, after, limit)
	if err != nil {
		return nil, err
	}
	for i, p := range pairs {
		if pairs[i].Value, err = r.open(p.Key, p.Value); err != nil {
			return nil, err
		}
	}
	return pairs, nil
}

type sealedTxn struct {
	sealedReader
	txn catalog.Txn
}

// Put implements catalog.Txn.
func (t sealedTxn) Put(key string, value []byte) error {
	blob, err := t.seal(key, value)
	if err != nil {
		return err
	}
	return t.txn.Put(key, blob)
}

// Delete implements catalog.Txn.
func (t sealedTxn) Delete(key string) error { return t.txn.Delete(key) }

// CheckSealed returns a check for catalog.Open: every value opens under this root key.
func CheckSealed(root *Root) func(catalog.Reader) error {
	return func(r catalog.Reader) error {
		sealed := sealedReader{r, sealer{root}}
		for after := ""; ; {
			pairs, err := sealed.Scan("", after, 256)
			if err != nil || len(pairs) == 0 {
				return err
			}
			after = pairs[len(pairs)-1].Key
		}
	}
}
