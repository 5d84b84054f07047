// Package pool is where the bytes of layers live: named flat volumes that know nothing of encryption or of maps.
// The first pool keeps them in local files; another store is one more implementation that passes pooltest.
package pool

import (
	"context"
	"errors"
)

// BlockSize is the unit in which volumes are sized and holes are made.
const BlockSize = 4096

var (
	// ErrNotExist: no volume has that name.
	ErrNotExist = errors.New("pool: no such volume")
	// ErrExist: the name is taken.
	ErrExist = errors.New("pool: volume exists already")
	// ErrInUse: another opener holds the volume, and it is not fenced.
	ErrInUse = errors.New("pool: volume is open elsewhere")
	// ErrLost: this opener was fenced; none of its I/O takes effect any more.
	ErrLost = errors.New("pool: volume is lost to this opener")
	// ErrDamaged: the volume is not as it was left (a missing or short file, for instance).
	ErrDamaged = errors.New("pool: volume is damaged")
)

// Identity names one opening of a volume, for ever. It goes into the catalog before the first write, so that
// whoever takes over after a crash can fence it.
type Identity string

// Space is what a pool has, in bytes.
type Space struct{ Total, Free int64 }

// Capabilities says what a pool can do, so that nobody finds out by failing.
type Capabilities struct {
	// Discard tells that giving back 4 KiB ranges frees space (advice elsewhere).
	Discard bool
	// Reserve tells that a write to a reserved range can't run out of space.
	Reserve bool
	// FastReserve tells that Reserve does so without writing the range.
	FastReserve bool
	// Paths tells that volumes are local files and Segments names them.
	Paths bool
}

// Pool makes, opens and deletes volumes. Names are "LAYER/data" and "LAYER/map".
type Pool interface {
	Capabilities() Capabilities
	// Space is what is left; a disk larger than that is allowed and warned about.
	Space() (Space, error)
	// Create makes a volume of size bytes that reads as zeros, durably: after it returns it survives a power cut.
	Create(ctx context.Context, name string, size int64) error
	// Open opens a volume for reading, and for writing unless readOnly. One opener at a time may write.
	Open(ctx context.Context, name string, readOnly bool) (Volume, error)
	// Delete removes a volume durably. Deleting what is not there is ErrNotExist.
	Delete(ctx context.Context, name string) error
	// List names every volume, for finding what a crash left behind.
	List(ctx context.Context) ([]string, error)
	// Settle makes durable what anybody wrote, and tells of a write that failed since it was last called on this machine, also of one that
	// whoever waited for it could not be told of. A store that can't tell of those says nothing.
	Settle() error
	// Fence returns only when no I/O of that identity can ever take effect again.
	Fence(ctx context.Context, id Identity) error
	// Segments are the local files behind a volume, in order, where Capabilities.Paths says so.
	Segments(name string) ([]string, error)
}

// Volume is one open volume. Offsets and lengths are any bytes inside it; methods may be called concurrently.
// Errors wrap a syscall.Errno where the system gave one.
type Volume interface {
	Identity() Identity
	Size() int64
	ReadAt(p []byte, off int64) (int, error)
	// ReadAtNowait is ReadAt for what can be had without waiting for storage, else the error wraps syscall.EAGAIN. A
	// volume that can't tell reads plainly.
	ReadAtNowait(p []byte, off int64) (int, error)
	// Prefetch is advice: the range will be read soon. It does not wait for storage, and may fetch a part only.
	Prefetch(off, n int64) error
	WriteAt(p []byte, off int64) (int, error)
	// WriteOut is advice: what was written to the range may go to storage now. It does not wait for that, and Flush is what counts.
	WriteOut(off, n int64) error
	// WriteAtSync writes durably: the range, and what is needed to read it back, survives a power cut.
	WriteAtSync(p []byte, off int64) (int, error)
	// Flush returns once every write that returned before the call is durable.
	Flush() error
	// Settle makes durable what earlier openers left in caches and, where drop is set, empties the caches, so that
	// what is read from then on is what is stored and not what a failed sync left behind.
	Settle(drop bool) error
	// NextData is the first byte from off on that may be other than zero, or the volume's size where there is none.
	NextData(off int64) (int64, error)
	// Discard is advice: the range may read as anything after it, and its space may come back.
	Discard(off, n int64) error
	// Reserve allocates the space of a range and leaves what it reads as alone. The caller keeps writes to the
	// range away meanwhile.
	Reserve(off, n int64) error
	// Resize grows the volume durably; the new part reads as zeros. Shrinking is refused.
	Resize(size int64) error
	// Freeze ends writing through this opening, and lets others read the volume: from then on whatever would change it is
	// syscall.EROFS. What was written must have been flushed. An opening for reading is frozen already.
	Freeze() error
	// Lost is closed when this opener has been fenced.
	Lost() <-chan struct{}
	Close() error
}
