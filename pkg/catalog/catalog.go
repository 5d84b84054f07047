// Package catalog is the transactional key-value store that holds all metadata. What it stores is sealed above
// it: an implementation sees names and ciphertext. I/O of disks never comes here.
package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Limits of one Update; a change that needs more is several changes.
const (
	MaxOps   = 64
	MaxValue = 64 << 10
	MaxKey   = 512
)

var (
	// ErrNotFound: the key is absent, which differs from empty.
	ErrNotFound = errors.New("catalog: no such key")
	// ErrTooLarge: an Update went over MaxOps, MaxValue or MaxKey. Nothing of it took effect.
	ErrTooLarge = errors.New("catalog: change is too large")
	// ErrUnknownOutcome: a commit may or may not have happened; Outcome tells which.
	ErrUnknownOutcome = errors.New("catalog: outcome unknown")
	// ErrDamaged: what is stored is not what was written. The error that wraps it names the place.
	ErrDamaged = errors.New("catalog: damaged")
	// ErrClosed: the store is closed.
	ErrClosed = errors.New("catalog: closed")
)

// DamagedRecord is a value that can't be read. It is ErrDamaged.
type DamagedRecord struct {
	Key string
	Err error
}

func (d DamagedRecord) Error() string {
	return fmt.Sprintf("%v: record %q: %v", ErrDamaged, d.Key, d.Err)
}

// Unwrap makes it ErrDamaged too.
func (d DamagedRecord) Unwrap() []error { return []error{ErrDamaged, d.Err} }

// Pair is one key with its value. The value belongs to the receiver.
type Pair struct {
	Key   string
	Value []byte
}

// Reader reads one revision. What View hands out may be used from many goroutines.
type Reader interface {
	Get(key string) ([]byte, error)
	// Scan returns up to limit pairs whose key starts with prefix and sorts after the key after, in order. Where a value can't
	// be read it returns the pairs before it, and a DamagedRecord.
	Scan(prefix, after string, limit int) ([]Pair, error)
	// GetMany is Scan of these keys, in their order. Those that are absent are left out.
	GetMany(keys []string) ([]Pair, error)
	// Names is Scan of the keys alone. It reads no values.
	Names(prefix, after string, limit int) ([]string, error)
	// Count tells how many keys start with prefix. It reads no values.
	Count(prefix string) (int, error)
}

// Txn is a Reader that sees its own changes.
type Txn interface {
	Reader
	Put(key string, value []byte) error
	Delete(key string) error
}

// Event is a hint that keys under a watched prefix changed. Lost is set when events were dropped: list again.
type Event struct {
	Keys []string
	Lost bool
}

// Store is a catalog. View is linearizable. Update is serializable, and its function may run again: it has no
// side effects and does no open-ended scan. A commit is durable when Update returns.
type Store interface {
	View(ctx context.Context, fn func(Reader) error) error
	// Update runs fn and commits. The request id goes into the same commit, for Outcome.
	Update(ctx context.Context, request string, fn func(Txn) error) error
	// Outcome tells whether the Update with that request id committed.
	Outcome(ctx context.Context, request string) (bool, error)
	// Revision counts commits; it never goes back, and a store that was rolled back shows it.
	Revision(ctx context.Context) (uint64, error)
	// Watch sends hints about keys under prefix until ctx ends.
	Watch(ctx context.Context, prefix string) (<-chan Event, error)
	// Export writes every pair as a stream that Import of any implementation reads into an empty store.
	Export(ctx context.Context, w io.Writer) error
	Import(ctx context.Context, r io.Reader) error
	Close() error
}
