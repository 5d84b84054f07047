package keystore

import (
	"context"
	"errors"
	"sync"

	"nbdcrypt/pkg/aes256"
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
		return nil, catalog.DamagedRecord{Key: name, Err: err}
	}
	return plain, nil
}

// openAll opens the values of pairs in their place. It ends at the first that does not open, and returns how many did.
func (s sealer) openAll(pairs []catalog.Pair) (n int, err error) {
	const many = 64
	if len(pairs) < many {
		return s.openSome(pairs)
	}
	// Half of them on another processor.
	half := len(pairs) / 2
	var rest int
	var restErr error
	var all sync.WaitGroup
	all.Go(func() { rest, restErr = s.openSome(pairs[half:]) })
	n, err = s.openSome(pairs[:half])
	all.Wait()
	if err != nil {
		return n, err
	}
	return half + rest, restErr
}

func (s sealer) openSome(pairs []catalog.Pair) (n int, err error) {
	if len(pairs) == 0 {
		return 0, nil
	}
	m, err := s.root.sealing()
	if err != nil {
		return 0, err
	}
	prefix := newIdentity("nbdcrypt/v1/catalog", s.root.Store)
	err = withGCMs(m, func(under func(identity) (*aes256.GCM, error)) error {
		for ; n < len(pairs); n++ {
			if err := openPair(&pairs[n], prefix, under); err != nil {
				return catalog.DamagedRecord{Key: pairs[n].Key, Err: err}
			}
		}
		return nil
	})
	return n, err
}

func openPair(p *catalog.Pair, prefix identity, under func(identity) (*aes256.GCM, error)) error {
	size := max(0, len(p.Value)-blobOverhead)
	if err := checkBlob(p.Value, size); err != nil {
		return err
	}
	id := prefix.text(p.Key)
	g, err := under(id)
	if err != nil {
		return err
	}
	// What is read of a catalog is the reader's: it may be opened where it lies.
	plain := p.Value[blobHead : blobHead+size : blobHead+size]
	err = openWith(g, plain, id, p.Value)
	p.Value = plain
	return err
}

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
	return r.opened(pairs, err)
}

// GetMany implements catalog.Reader.
func (r sealedReader) GetMany(keys []string) ([]catalog.Pair, error) {
	pairs, err := r.below.GetMany(keys)
	return r.opened(pairs, err)
}

// opened opens what was read before err.
func (r sealedReader) opened(pairs []catalog.Pair, err error) ([]catalog.Pair, error) {
	n, bad := r.openAll(pairs)
	if bad != nil {
		err = bad
	}
	return pairs[:n], err
}

// Names implements catalog.Reader.
func (r sealedReader) Names(prefix, after string, limit int) ([]string, error) {
	return r.below.Names(prefix, after, limit)
}

// Count implements catalog.Reader.
func (r sealedReader) Count(prefix string) (int, error) { return r.below.Count(prefix) }

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

// CheckSealed returns a check for catalog.Open: what names the catalog's store opens under this root key. Nothing else is opened: a
// value that does not open is found by whoever needs it, and is then all that is lost.
func CheckSealed(root *Root) func(catalog.Reader) error {
	return func(r catalog.Reader) error {
		_, err := sealedReader{r, sealer{root}}.Get(storeKey)
		if errors.Is(err, catalog.ErrNotFound) {
			return nil // Open decides what that means
		}
		return err
	}
}
