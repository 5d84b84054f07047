// Package layer is one layer of a disk in the pool: a data volume, and a map that says of every block what it is.
// docs/disk-format.md gives the bytes and the order in which they are written. A layer knows nothing of keys; what it
// stores is what cryptdev hands it.
package layer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/google/uuid"

	"nbdcrypt/pkg/pool"
)

// Layer is an open layer. Callers lock the blocks that they touch (Lock); everything else is safe for concurrent use.
type Layer struct {
	Header
	data, mapVol pool.Volume
	blocks       *blockMap
	locks        stripes
	flushes      flushGroup
	durable      atomic.Int32 // durable writes in progress
	written      atomic.Bool  // the data volume has writes that no flush has covered
	punches      punchList
	punching     sync.WaitGroup
	failure      atomic.Pointer[error]
	onFailure    func(error)
	unjournaled  func(error)
	trims        trimTimer
	fastReserve  bool
	mapWriting   sync.Mutex // held while pages are written, so that a check does not read half of one
}

// DataName and MapName are the names of a layer's volumes in the pool.
func DataName(id uuid.UUID) string { return id.String() + "/data" }

// MapName is the name of the map's volume.
func MapName(id uuid.UUID) string { return id.String() + "/map" }

// Create makes a layer for a disk of size bytes, durably.
func Create(ctx context.Context, p pool.Pool, h Header, size int64) error {
	if size <= 0 || size > MaxSize {
		return fmt.Errorf("layer: size %d is outside of 1 to %d: %w", size, int64(MaxSize), syscall.EINVAL)
	}
	if err := p.Create(ctx, DataName(h.ID), DataSize(size)); err != nil {
		return err
	}
	if err := p.Create(ctx, MapName(h.ID), MapSize(size)); err != nil {
		return err
	}
	v, err := p.Open(ctx, MapName(h.ID), false)
	if err != nil {
		return err
	}
	page := h.encode()
	_, err = v.WriteAt(append(page, page...), 0)
	return errors.Join(err, v.Flush(), v.Close())
}

// Delete removes both volumes; what is not there any more is fine. The map goes last: it says what the rest was.
func Delete(ctx context.Context, p pool.Pool, id uuid.UUID) error {
	for _, name := range []string{DataName(id), MapName(id)} {
		if err := p.Delete(ctx, name); err != nil && !errors.Is(err, pool.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Options say how a layer is opened.
type Options struct {
	ReadOnly bool
	// Unclean tells that the last opening did not end in Close, or that its sync failed.
	Unclean bool
	// OnFailure is called once, when the first sync fails.
	OnFailure func(error)
	// Journals are where the layer's journal is kept, nil for nowhere, and Opening names what it is the journal of.
	Journals *Journals
	Opening  uuid.UUID
	// Unjournaled is called once, where the journal can't be written. It may be nil.
	Unjournaled func(error)
	// Replay is what a journal has kept of the opening before this one; it is made durable by the next flush.
	Replay []Change
}

// Open opens a layer that the catalog describes as want, of a disk of size bytes. A header that tells otherwise is damage.
func Open(ctx context.Context, p pool.Pool, want Header, size int64, o Options) (*Layer, error) {
	l := &Layer{Header: want, onFailure: o.OnFailure, unjournaled: o.Unjournaled, fastReserve: p.Capabilities().FastReserve}
	if err := l.openVolumes(ctx, p, o); err != nil {
		l.closeVolumes()
		return nil, err
	}
	if err := l.checkHeader(want, size); err != nil {
		l.closeVolumes()
		return nil, err
	}
	l.blocks = newBlockMap(want.ID, l.mapVol)
	l.blocks.frozen.Store(o.ReadOnly)
	if err := l.replay(o.Replay); err != nil {
		l.closeVolumes()
		return nil, err
	}
	if o.Journals != nil && !o.ReadOnly {
		l.begin(p, o)
	}
	return l, nil
}

func (l *Layer) openVolumes(ctx context.Context, p pool.Pool, o Options) (err error) {
	if l.data, err = p.Open(ctx, DataName(l.ID), o.ReadOnly); err != nil {
		return err
	}
	if l.mapVol, err = p.Open(ctx, MapName(l.ID), o.ReadOnly); err != nil {
		return err
	}
	if o.ReadOnly {
		return nil
	}
	return errors.Join(l.data.Settle(o.Unclean), l.mapVol.Settle(true))
}

func (l *Layer) closeVolumes() {
	for _, v := range []pool.Volume{l.data, l.mapVol} {
		if v != nil {
			_ = v.Close()
		}
	}
}

func (l *Layer) checkHeader(want Header, size int64) error {
	if l.data.Size() < DataSize(size) || l.mapVol.Size() < MapSize(size) {
		return fmt.Errorf("%w: layer %s is shorter than its disk: data %d of %d bytes, map %d of %d", ErrDamaged,
			want.ID, l.data.Size(), DataSize(size), l.mapVol.Size(), MapSize(size))
	}
	got, _, err := readHeader(l.mapVol)
	if err != nil {
		return fmt.Errorf("layer %s: %w", want.ID, err)
	}
	if got != want {
		return fmt.Errorf("%w: layer %s says that it is %+v, the catalog says %+v", ErrDamaged, want.ID, got, want)
	}
	return nil
}

// readHeader reads the header; the second copy serves where the first is damaged, which is reported too.
func readHeader(v pool.Volume) (h Header, damaged error, err error) {
	buf := make([]byte, 2*pageSize)
	if _, err := v.ReadAt(buf, 0); err != nil {
		return Header{}, nil, err
	}
	first, err1 := decodeHeader(buf[:pageSize])
	second, err2 := decodeHeader(buf[pageSize:])
	switch {
	case err1 == nil && err2 == nil && first != second:
		return Header{}, nil, fmt.Errorf("%w: the two copies of the map's header differ", ErrDamaged)
	case err1 == nil:
		return first, err2, nil
	case err2 == nil && errors.Is(err1, ErrDamaged):
		return second, err1, nil
	}
	return Header{}, nil, err1
}

// Run tells the state at off and up to where, at most to end, it holds. Where that is not in memory, and nobody wants to
// wait for storage, the error is syscall.EAGAIN, for all of what is returned.
func (l *Layer) Run(off, end int64, wait bool) (State, int64, error) {
	b := off / BlockSize
	state, n, err := l.blocks.run(b, (end+BlockSize-1)/BlockSize-b, wait)
	return state, min(end, (b+n)*BlockSize), err
}

// ReadAt reads what the data volume holds, which means something only where the state is Data. Without wait, what would have
// to be fetched from storage is syscall.EAGAIN.
func (l *Layer) ReadAt(p []byte, off int64, wait bool) (err error) {
	if wait {
		_, err = l.data.ReadAt(p, off)
	} else {
		_, err = l.data.ReadAtNowait(p, off)
	}
	return err
}

// Prefetch is advice that a range of the data volume will be read soon.
func (l *Layer) Prefetch(off, n int64) error { return l.data.Prefetch(off, n) }

// WriteOut is advice that what was written to a range of the data volume may go to storage now.
func (l *Layer) WriteOut(off, n int64) error { return l.data.WriteOut(off, n) }

// PrefetchMap is advice that the state at off will be asked for soon.
func (l *Layer) PrefetchMap(off int64) error {
	return l.mapVol.Prefetch(pageAt(off/bytesPerRecord, 1), recordPairSize)
}

// FastReserve tells whether Zero with reserve writes no data.
func (l *Layer) FastReserve() bool { return l.fastReserve }

// Failed is the sync that failed while this layer was open; nothing is written after it.
func (l *Layer) Failed() error {
	if err := l.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// syncFailure is a failed sync. Its errno is EIO whatever the cause: of a sync that met ENOSPC nobody should think that room
// would mend it. What else the cause is, it is too.
type syncFailure struct {
	layer uuid.UUID
	cause error
}

func (f *syncFailure) Error() string {
	return fmt.Sprintf("layer %s: a sync failed (%v), nothing more is written until the disk is detached: %v",
		f.layer, syscall.EIO, f.cause)
}

func (f *syncFailure) Unwrap() error { return syscall.EIO }

func (f *syncFailure) Is(target error) bool {
	var errno syscall.Errno
	return !errors.As(target, &errno) && errors.Is(f.cause, target)
}

// fail remembers the first failed sync for as long as the layer is open. Before anybody can be told the journal goes: what it says of
// data that a failed sync may have dropped must never be believed.
func (l *Layer) fail(cause error) error {
	l.blocks.loseJournal()
	var err error = &syncFailure{l.ID, cause}
	if l.failure.CompareAndSwap(nil, &err) && l.onFailure != nil {
		l.onFailure(cause)
	}
	return l.Failed()
}

// manyDurable is how many durable writes at a time are better served by the Flush that they then share: each synchronous write
// waits for storage by itself. A single one does not pay for what others have left unsynced.
const manyDurable = 4

// Write stores p at off, where all blocks are Data. With fua it tells whether the range is durable; if not, a Flush makes
// it so.
func (l *Layer) Write(p []byte, off int64, fua bool) (durable bool, err error) {
	if err := l.Failed(); err != nil {
		return false, err
	}
	if fua {
		defer l.durable.Add(-1)
		fua = l.durable.Add(1) < manyDurable
	}
	b := off / BlockSize
	if fua && l.blocks.settled(b, (off+int64(len(p))+BlockSize-1)/BlockSize-b, Data) {
		if _, err := l.data.WriteAtSync(p, off); err != nil {
			return false, l.fail(err)
		}
		return true, nil
	}
	return false, l.write(p, off)
}

// WriteNew stores p, whole blocks, at off and makes its blocks Data.
func (l *Layer) WriteNew(p []byte, off int64) error {
	if err := l.Failed(); err != nil {
		return err
	}
	b, n := off/BlockSize, int64(len(p))/BlockSize
	if err := l.blocks.prepare(b, n); err != nil {
		return err
	}
	if err := l.write(p, off); err != nil {
		return err
	}
	l.blocks.set(b, n, Data)
	return nil
}

// write marks the layer after the write: a flush that begins in between must not take the mark away. A mark that is there is
// left alone, so that writers share the line it lies in; a flush that takes it away after we saw it syncs our write.
func (l *Layer) write(p []byte, off int64) error {
	_, err := l.data.WriteAt(p, off)
	if !l.written.Load() {
		l.written.Store(true)
	}
	return err
}

// Zero makes whole blocks read as zeros. With reserve their space is allocated, else it is given back after a flush.
func (l *Layer) Zero(off, n int64, reserve bool) error {
	if err := l.Failed(); err != nil {
		return err
	}
	b, blocks := off/BlockSize, n/BlockSize
	if err := l.blocks.prepare(b, blocks); err != nil {
		return err
	}
	if reserve {
		if err := l.data.Reserve(off, n); err != nil {
			return err
		}
		l.written.Store(true) // the allocation wants its sync too
		l.blocks.set(b, blocks, Reserved)
		return nil
	}
	l.blocks.set(b, blocks, Zero)
	l.punches.add(off, n)
	l.trims.start(trimDelay, l.Flush)
	return nil
}

// Resize makes room for a disk of size bytes, durably, before anyone counts on it.
func (l *Layer) Resize(size int64) error {
	if err := l.Failed(); err != nil {
		return err
	}
	if size > MaxSize {
		return fmt.Errorf("layer: size %d is over %d: %w", size, int64(MaxSize), syscall.EFBIG)
	}
	if l.data.Size() < DataSize(size) {
		if err := l.data.Resize(DataSize(size)); err != nil {
			return err
		}
	}
	if l.mapVol.Size() < MapSize(size) {
		return l.mapVol.Resize(MapSize(size))
	}
	return nil
}

// Lost is closed when the pool has fenced this opening.
func (l *Layer) Lost() <-chan struct{} { return l.data.Lost() }

// Identities name this opening of the two volumes.
func (l *Layer) Identities() []pool.Identity {
	return []pool.Identity{l.data.Identity(), l.mapVol.Identity()}
}

// Close ends the opening. It does not flush: who closes has flushed, and knows how that went. The journal stays for who closed it: until
// the catalog knows of the end, it is what proves that nothing was lost.
func (l *Layer) Close() error {
	l.trims.stop()
	l.punching.Wait()
	l.endJournal()
	return errors.Join(l.data.Close(), l.mapVol.Close())
}
