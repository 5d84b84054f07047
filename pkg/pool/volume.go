package pool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/durable"
)

// fileVolume is one opening of a volume of files.
type fileVolume struct {
	pool *Files
	name string
	base string
	id   Identity
	ro   bool // opened for reading, or frozen since

	// gate is held shared by every operation, and alone by what ends or resizes the opening.
	gate sync.RWMutex
	lost chan struct{}
	gone error // why operations are refused, nil while the volume is open
	segs []*segment
	size atomic.Int64
}

// Open opens every segment and checks that the files are as Create and Resize leave them.
func (f *Files) Open(_ context.Context, name string, readOnly bool) (Volume, error) {
	base, err := f.base(name)
	if err != nil {
		return nil, err
	}
	paths, err := f.Segments(name)
	if err != nil {
		return nil, err
	}
	id, err := newIdentity()
	if err != nil {
		return nil, err
	}
	v := &fileVolume{pool: f, name: name, base: base, id: id, ro: readOnly, lost: make(chan struct{})}
	if err := v.openAll(paths); err != nil {
		v.closeAll()
		return nil, err
	}
	f.mu.Lock()
	f.open[id] = v
	f.mu.Unlock()
	return v, nil
}

func (v *fileVolume) openAll(paths []string) error {
	for i, path := range paths {
		if path != mustAbs(segmentPath(v.base, i)) {
			return fmt.Errorf("%w: %s: segment %d is missing", ErrDamaged, v.name, i)
		}
		length, err := v.openSegment(path)
		if err != nil {
			return err
		}
		if i < len(paths)-1 && length != SegmentSize {
			return fmt.Errorf("%w: %s has %d bytes instead of %d", ErrDamaged, path, length, int64(SegmentSize))
		}
		v.size.Add(length)
	}
	return v.lock()
}

func mustAbs(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	return abs
}

func (v *fileVolume) openSegment(path string) (int64, error) {
	mode := os.O_RDWR
	if v.ro {
		mode = os.O_RDONLY
	}
	file, err := os.OpenFile(path, mode, 0)
	if err != nil {
		return 0, fmt.Errorf("pool: %w", err)
	}
	s := &segment{File: file, fd: int(file.Fd())}
	v.segs = append(v.segs, s)
	if !v.ro {
		if s.syncer, err = os.OpenFile(path, mode, 0); err != nil {
			return 0, fmt.Errorf("pool: %w", err)
		}
		s.syncFD = int(s.syncer.Fd())
		if s.twoCalls, err = onFUSE(s.syncFD); err != nil {
			return 0, fmt.Errorf("pool: %s: %w", path, err)
		}
	}
	st, err := file.Stat()
	if err != nil {
		return 0, fmt.Errorf("pool: %w", err)
	}
	return st.Size(), nil
}

// lock keeps a second writer away; the kernel drops it with the process.
func (v *fileVolume) lock() error {
	how := unix.LOCK_EX
	if v.ro {
		how = unix.LOCK_SH
	}
	if err := unix.Flock(v.segs[0].fd, how|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%w: %s (%w)", ErrInUse, v.name, err)
	}
	return nil
}

func (v *fileVolume) Identity() Identity    { return v.id }
func (v *fileVolume) Size() int64           { return v.size.Load() }
func (v *fileVolume) Lost() <-chan struct{} { return v.lost }

// enter begins an operation on [off, off+n); every nil return is followed by leave.
func (v *fileVolume) enter(off, n int64) error {
	v.gate.RLock()
	err := v.gone
	if err == nil && (off < 0 || n < 0 || off > v.Size()-n) {
		err = fmt.Errorf("pool: %s: bytes %d to %d are outside of its %d: %w", v.name, off, off+n, v.Size(), unix.EINVAL)
	}
	if err != nil {
		v.gate.RUnlock()
	}
	return err
}

func (v *fileVolume) leave() { v.gate.RUnlock() }

// change is enter for what changes the volume.
func (v *fileVolume) change(off, n int64) error {
	err := v.enter(off, n)
	if err == nil && v.ro {
		v.leave()
		err = v.readOnly()
	}
	return err
}

func (v *fileVolume) readOnly() error {
	return fmt.Errorf("pool: %s is open for reading: %w", v.name, unix.EROFS)
}

func (v *fileVolume) ReadAt(p []byte, off int64) (int, error) {
	return v.each(p, off, (*fileVolume).enter, (*segment).read)
}

func (v *fileVolume) ReadAtNowait(p []byte, off int64) (int, error) {
	return v.each(p, off, (*fileVolume).enter, (*segment).readNowait)
}

func (v *fileVolume) WriteAt(p []byte, off int64) (int, error) {
	return v.each(p, off, (*fileVolume).change, (*segment).write)
}

func (v *fileVolume) WriteAtSync(p []byte, off int64) (int, error) {
	return v.each(p, off, (*fileVolume).change, (*segment).writeSync)
}

// each does with each part of p that lies in one segment what is to be done.
func (v *fileVolume) each(p []byte, off int64, begin func(v *fileVolume, off, n int64) error,
	do func(*segment, []byte, int64) (int, error)) (int, error) {
	if err := begin(v, off, int64(len(p))); err != nil {
		return 0, err
	}
	defer v.leave()
	for done := 0; done < len(p); {
		at := off + int64(done)
		length := min(int64(len(p)-done), SegmentSize-at%SegmentSize)
		n, err := do(v.segs[at/SegmentSize], p[done:done+int(length)], at%SegmentSize)
		done += n
		if err == unix.EAGAIN {
			return done, err // as it is: it is told often, and is no failure
		}
		if err != nil {
			return done, fmt.Errorf("pool: %w", err)
		}
	}
	return len(p), nil
}

// prefetchStep is what a kernel reads ahead at least when it is asked to; of more it may read the beginning only. prefetchMost
// bounds one call.
const (
	prefetchStep = 128 << 10
	prefetchMost = 32 << 20
)

// Prefetch starts reading into the page cache.
func (v *fileVolume) Prefetch(off, n int64) error {
	if err := v.enter(off, n); err != nil {
		return err
	}
	defer v.leave()
	for end := off + min(n, prefetchMost); off < end; off += prefetchStep {
		for p := range split(off, min(prefetchStep, end-off)) {
			if err := unix.Fadvise(v.segs[p.segment].fd, p.off, p.n, unix.FADV_WILLNEED); err != nil {
				return fmt.Errorf("pool: read %s ahead: %w", v.segs[p.segment].Name(), err)
			}
		}
	}
	return nil
}

// WriteOut has the kernel begin to write (sync_file_range(2)). An error of storage stays for the next sync to find.
func (v *fileVolume) WriteOut(off, n int64) error {
	if err := v.enter(off, n); err != nil {
		return err
	}
	defer v.leave()
	for p := range split(off, n) {
		_ = unix.SyncFileRange(v.segs[p.segment].fd, p.off, p.n, unix.SYNC_FILE_RANGE_WRITE)
	}
	return nil
}

// Settle syncs every segment, dirty to us or not. Only clean pages can be dropped, hence the order.
func (v *fileVolume) Settle(drop bool) error {
	if err := v.enter(0, 0); err != nil {
		return err
	}
	defer v.leave()
	for _, s := range v.segs {
		if err := durable.Data(s.File); err != nil {
			return fmt.Errorf("pool: sync %s: %w", s.Name(), err)
		}
		if !drop {
			continue
		}
		if err := unix.Fadvise(s.fd, 0, 0, unix.FADV_DONTNEED); err != nil {
			return fmt.Errorf("pool: drop the cache of %s: %w", s.Name(), err)
		}
	}
	return nil
}

// Flush syncs the segments that were written. A mark is taken before its sync, and put back where that fails.
func (v *fileVolume) Flush() error {
	if err := v.enter(0, 0); err != nil {
		return err
	}
	defer v.leave()
	for _, s := range v.segs {
		if !s.dirty.Swap(false) {
			continue
		}
		if err := durable.Data(s.File); err != nil {
			s.dirty.Store(true)
			return fmt.Errorf("pool: sync %s: %w", s.Name(), err)
		}
	}
	return nil
}

// NextData asks where the next allocated part begins; a file system that can't tell counts as full (lseek(2), SEEK_DATA).
func (v *fileVolume) NextData(off int64) (int64, error) {
	if err := v.enter(off, 0); err != nil {
		return 0, err
	}
	defer v.leave()
	for i := int(off / SegmentSize); i < len(v.segs); i++ {
		base := int64(i) * SegmentSize
		at, err := unix.Seek(v.segs[i].fd, max(0, off-base), unix.SEEK_DATA)
		switch {
		case err == nil:
			return base + at, nil
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
			return max(off, base), nil
		case !errors.Is(err, unix.ENXIO):
			return 0, fmt.Errorf("pool: %s: %w", v.segs[i].Name(), err)
		}
	}
	return v.Size(), nil
}

// Discard punches holes into whole blocks; a file system that can't keeps the space.
func (v *fileVolume) Discard(off, n int64) error {
	return v.fallocate(off, n, func(s *segment, off, n int64) error {
		err := unix.Fallocate(s.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
		if errors.Is(err, unix.EOPNOTSUPP) {
			return nil
		}
		return err
	})
}

// Reserve allocates the range.
func (v *fileVolume) Reserve(off, n int64) error {
	return v.fallocate(off, n, func(s *segment, off, n int64) error {
		err := unix.Fallocate(s.fd, unix.FALLOC_FL_KEEP_SIZE, off, n)
		if errors.Is(err, unix.EOPNOTSUPP) {
			return s.rewrite(off, n)
		}
		return err
	})
}

func (v *fileVolume) fallocate(off, n int64, do func(s *segment, off, n int64) error) error {
	if err := v.change(off, n); err != nil {
		return err
	}
	defer v.leave()
	for p := range split(off, n) {
		s := v.segs[p.segment]
		err := do(s, p.off, p.n)
		for errors.Is(err, unix.EINTR) {
			err = do(s, p.off, p.n)
		}
		if err != nil {
			return fmt.Errorf("pool: %s: %w", s.Name(), err)
		}
		s.mark()
	}
	return nil
}

// Resize grows the last segment, adds those that are missing, and syncs all of it.
func (v *fileVolume) Resize(size int64) error {
	v.gate.Lock()
	defer v.gate.Unlock()
	old := v.Size()
	if v.gone != nil {
		return v.gone
	}
	if v.ro {
		return v.readOnly()
	}
	if size < old {
		return fmt.Errorf("pool: %s can't shrink from %d to %d: %w", v.name, old, size, unix.EINVAL)
	}
	last := len(v.segs) - 1
	if err := v.segs[last].Truncate(segmentLen(size, last)); err != nil {
		return fmt.Errorf("pool: grow: %w", err)
	}
	if err := v.segs[last].Sync(); err != nil {
		return fmt.Errorf("pool: grow: %w", err)
	}
	if err := createSegments(v.base, last+1, size); err != nil {
		return fmt.Errorf("pool: grow: %w", err)
	}
	for i := last + 1; i < segments(size); i++ {
		if _, err := v.openSegment(segmentPath(v.base, i)); err != nil {
			return err
		}
	}
	v.size.Store(size)
	return nil
}

// Freeze lets go of what only a writer needs: its descriptors, and the lock that keeps readers away. Linux may give the lock to
// another between the two; who asks to write a volume that has a reader is refused, so only a writer that came just then is
// in the way.
func (v *fileVolume) Freeze() error {
	v.gate.Lock()
	defer v.gate.Unlock()
	if v.gone != nil {
		return v.gone
	}
	v.ro = true
	for _, s := range v.segs {
		if s.syncer != nil {
			_ = s.syncer.Close() // every write through it was synced, or failed
			s.syncer = nil
		}
	}
	return v.lock()
}

// fence waits for what is in flight and refuses the rest.
func (v *fileVolume) fence() {
	if v.end(fmt.Errorf("%w: %s (%w)", ErrLost, v.name, unix.EIO)) {
		close(v.lost)
	}
}

func (v *fileVolume) Close() error {
	v.end(fmt.Errorf("pool: %s is closed: %w", v.name, os.ErrClosed))
	return nil
}

// end makes every later operation fail with why, and tells whether it was the first to do so.
func (v *fileVolume) end(why error) bool {
	v.gate.Lock()
	defer v.gate.Unlock()
	if v.gone != nil {
		return false
	}
	v.gone = why
	v.closeAll()
	v.pool.mu.Lock()
	delete(v.pool.open, v.id)
	v.pool.mu.Unlock()
	return true
}

func (v *fileVolume) closeAll() {
	for _, s := range v.segs {
		_ = s.Close() // what mattered was synced by Flush, whose errors are seen
		if s.syncer != nil {
			_ = s.syncer.Close()
		}
	}
}
