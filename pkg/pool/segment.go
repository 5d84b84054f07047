package pool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/durable"
)

// segment is one file; dirty tells that it has writes that no sync has covered.
type segment struct {
	*os.File
	dirty atomic.Bool
	fd    int         // of File
	blunt atomic.Bool // the file system can't tell which reads would wait

	// syncer is a second descriptor for synchronous writes: Linux reports a writeback error once to each descriptor,
	// and a flush must not miss one because a synchronous write was told of it. It is there from the start, since a
	// process that runs out of descriptors later must not look like storage that fails.
	syncer   *os.File
	syncFD   int  // of syncer
	twoCalls bool // a synchronous write is a write and a sync
}

// onFUSE tells files of a file system in user space. The kernel leaves it to that to honour the flag of a synchronous write, and most do not look.
func onFUSE(fd int) (bool, error) {
	var st unix.Statfs_t
	err := unix.Fstatfs(fd, &st)
	return st.Type == unix.FUSE_SUPER_MAGIC, err
}

// read reads all of p: a segment is never shorter than its volume.
func (s *segment) read(p []byte, off int64) (int, error) {
	n, err := s.File.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %s ends early (%w)", ErrDamaged, s.Name(), unix.EIO)
	}
	return n, err
}

// readNowait is one read with RWF_NOWAIT (preadv2(2)). It is short where only the beginning is cached. A file system that
// refuses the flag, as tmpfs does, is not asked again.
func (s *segment) readNowait(p []byte, off int64) (int, error) {
	if s.blunt.Load() {
		return s.read(p, off)
	}
	n, err := unix.Preadv2(s.fd, [][]byte{p}, off, unix.RWF_NOWAIT)
	switch {
	case err == nil && n == len(p):
		return n, nil
	case err == nil, err == unix.EAGAIN, err == unix.EINTR:
		return 0, unix.EAGAIN
	case err == unix.EOPNOTSUPP, err == unix.ENOSYS:
		s.blunt.Store(true)
		return s.read(p, off)
	}
	return 0, fmt.Errorf("%s: read: %w", s.Name(), err)
}

// write marks the segment after the write: a sync that begins in between must not take the mark away.
func (s *segment) write(p []byte, off int64) (int, error) {
	n, err := s.File.WriteAt(p, off)
	s.mark()
	return n, err
}

// mark leaves a mark that is there alone, so that writers on many processors share the line it lies in. A sync that takes
// the mark away after we saw it begins after our write.
func (s *segment) mark() {
	if !s.dirty.Load() {
		s.dirty.Store(true)
	}
}

// writeSync is one write with RWF_DSYNC, or a write and a sync where the file system refuses the flag or may pass over it.
func (s *segment) writeSync(p []byte, off int64) (int, error) {
	if s.twoCalls {
		return s.writeThenSync(p, off)
	}
	for done := 0; done < len(p); {
		n, err := unix.Pwritev2(s.syncFD, [][]byte{p[done:]}, off+int64(done), unix.RWF_DSYNC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return s.writeThenSync(p, off)
		case err != nil:
			return done, fmt.Errorf("%s: synchronous write: %w", s.Name(), err)
		}
		done += n
	}
	return len(p), nil
}

func (s *segment) writeThenSync(p []byte, off int64) (int, error) {
	n, err := s.syncer.WriteAt(p, off)
	if err == nil {
		err = durable.Data(s.syncer)
	}
	return n, err
}

// rewrite writes what a range reads as over itself, which allocates it on any file system.
func (s *segment) rewrite(off, n int64) error {
	buf := make([]byte, min(n, 1<<20))
	defer clear(buf)
	for end := off + n; off < end; off += int64(len(buf)) {
		buf = buf[:min(int64(len(buf)), end-off)]
		if _, err := s.ReadAt(buf, off); err != nil {
			return err
		}
		if _, err := s.write(buf, off); err != nil {
			return err
		}
	}
	return nil
}
