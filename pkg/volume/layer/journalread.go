package layer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"

	"github.com/google/uuid"

	"nbdcrypt/pkg/pool"
)

// Read gives the changes that an opening of a layer of size bytes has left in its journal: all that were answered since the last
// flush, the oldest first. A journal that is not whole, or of anything else, is an error: then nobody knows.
func (js *Journals) Read(p pool.Pool, id, opening uuid.UUID, size int64) ([]Change, error) {
	f, err := os.OpenFile(js.path(id, opening), os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("layer %s: journal: %w", id, err)
	}
	defer f.Close()
	where, err := filesOf(p, id)
	if err != nil {
		return nil, err
	}
	changes, err := readJournal(f, journalHeader{js.Boot, id, opening, where}, DataSize(size)/BlockSize)
	if st, failed := f.Stat(); err == nil && (failed != nil || st.Size() != journalSize) {
		err = errors.Join(fmt.Errorf("%w: the journal was cut off", ErrDamaged), failed)
	}
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", id, err)
	}
	return changes, nil
}

// source is what a journal is read from; a file tells too where it has holes.
type source interface {
	io.ReaderAt
	io.Seeker
}

func readJournal(f source, want journalHeader, blocks int64) ([]Change, error) {
	page := make([]byte, pageSize)
	if _, err := f.ReadAt(page, 0); err != nil {
		return nil, fmt.Errorf("%w: the journal's header: %w", ErrDamaged, err)
	}
	if err := want.check(page); err != nil {
		return nil, err
	}
	var halves [2]written
	for i := range halves {
		p, err := readHalf(f, pageSize+int64(i)*halfSize)
		if err == nil {
			halves[i], err = parseHalf(p, want.seed(), blocks)
		}
		if err != nil {
			return nil, err
		}
	}
	return join(halves[0], halves[1])
}

// join puts what two halves hold one behind the other: nothing may lack between them.
func join(older, newer written) ([]Change, error) {
	if len(older.changes) == 0 || len(newer.changes) == 0 {
		return append(older.changes, newer.changes...), nil
	}
	if older.first > newer.first {
		older, newer = newer, older
	}
	if older.torn || older.first+uint64(len(older.changes)) != newer.first {
		return nil, fmt.Errorf("%w: the journal's halves do not follow each other", ErrDamaged)
	}
	return append(older.changes, newer.changes...), nil
}

// readStep is how much of a half is read at a time.
const readStep = 64 << 10

// readHalf reads what a half holds. It is written from its beginning on, without gaps, and the rest is zeros. One that begins with zeros
// is empty whatever stands behind them: its first entry is the first that goes when what it holds is not needed any more.
func readHalf(f source, from int64) (p []byte, err error) {
	buf := make([]byte, readStep)
	for at := from; at < from+halfSize; {
		at = max(at, nextData(f, at)) // holes are many times larger than what there is
		n, err := f.ReadAt(buf[:min(readStep, max(0, from+halfSize-at))], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("layer: read the journal: %w", err)
		}
		if n == 0 {
			break
		}
		if !IsZero(buf[:n]) {
			if at == from && n >= entrySize && IsZero(buf[:entrySize]) {
				return nil, nil
			}
			if gap := at - from - int64(len(p)); gap > 0 && len(p) > 0 {
				return nil, fmt.Errorf("%w: the journal has a gap of %d bytes", ErrDamaged, gap)
			} else if gap > 0 {
				return nil, nil // what was not cleared yet behind a beginning that was
			}
			p = append(p, buf[:n]...)
		}
		at += int64(n)
	}
	return p, nil
}

// nextData is where the next part of a file that is no hole begins; 0 where nobody can tell.
func nextData(f source, at int64) int64 {
	const seekData = 3 // SEEK_DATA of lseek(2)
	file, ok := f.(*os.File)
	if !ok {
		return 0
	}
	next, err := syscall.Seek(int(file.Fd()), at, seekData)
	if errors.Is(err, syscall.ENXIO) {
		next, err = file.Seek(0, io.SeekEnd)
	}
	if err != nil {
		return 0
	}
	return next
}

// written is what a half holds: changes with numbers from first on, and whether an entry behind them was not written whole.
type written struct {
	first   uint64
	changes []Change
	torn    bool
}

// parseHalf reads entries until their end. The last may be torn, since whoever wrote it was killed, and nobody was told that it happened; anything
// else that is not as it was written is damage.
func parseHalf(p []byte, seed uint32, blocks int64) (w written, err error) {
	for at := 0; at < len(p); at += entrySize {
		if len(p)-at < entrySize {
			return w, fmt.Errorf("%w: the journal ends within an entry", ErrDamaged)
		}
		e := readEntry(p[at:])
		if e[3] == 0 {
			if !IsZero(p[at+entrySize:]) {
				return w, fmt.Errorf("%w: the journal goes on after its end", ErrDamaged)
			}
			w.torn = e != entry{}
			return w, nil
		}
		c := e.change()
		switch {
		case e[3] != proof(seed, p[at:]):
			return w, fmt.Errorf("%w: the sum of entry %d of the journal is wrong", ErrDamaged, at/entrySize)
		case at > 0 && e[2] != w.first+uint64(len(w.changes)):
			return w, fmt.Errorf("%w: entry %d of the journal has number %d", ErrDamaged, at/entrySize, e[2])
		case c.State == Absent || c.Blocks <= 0 || c.Block > blocks-c.Blocks:
			return w, fmt.Errorf("%w: entry %d of the journal is of %d blocks from %d on", ErrDamaged, at/entrySize, c.Blocks, c.Block)
		}
		if at == 0 {
			w.first = e[2]
		}
		w.changes = append(w.changes, c)
	}
	return w, nil
}

// filesOf tells which files a layer's volumes begin with.
func filesOf(p pool.Pool, id uuid.UUID) (of files, err error) {
	if !p.Capabilities().Paths {
		return of, nil
	}
	for i, name := range []string{DataName(id), MapName(id)} {
		paths, err := p.Segments(name)
		if err != nil || len(paths) == 0 {
			return of, fmt.Errorf("layer %s: its files: %w", id, errors.Join(err, pool.ErrNotExist))
		}
		kind, err := fileSystem(paths[0])
		if err != nil {
			return of, err
		}
		if !slices.Contains([]int64{tmpfs, ext, xfs, btrfs, f2fs, overlay}, kind) {
			return of, fmt.Errorf("layer %s: its files are on a file system (type %#x) that may forget what was written without the machine's end: %w", id, kind, syscall.ENOTSUP)
		}
		var st syscall.Stat_t
		if err := syscall.Stat(paths[0], &st); err != nil {
			return of, fmt.Errorf("layer %s: %w", id, err)
		}
		of[2*i], of[2*i+1] = uint64(st.Dev), st.Ino
	}
	return of, nil
}
