package layer

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"nbdcrypt/pkg/pool"
)

// journal keeps, where a killed process can't take it away, the changes of a map that no flush has made durable. It is memory of a file,
// so that an entry costs no system call. Its methods are called with the map's lock held.
type journal struct {
	all     *Journals
	shorten func() // has a flush begin soon
	path    string
	file    *os.File
	seed    uint32
	halves  [2]half
	now     int    // the half that is written
	next    uint64 // number of the next entry
	early   bool   // it lacks what the flush before it has still to make durable, and has no good name until then
}

// earlyName is what a journal is called, behind its own name, while nobody may believe it.
const earlyName = ".early"

// beginJournal makes the journal of an opening of a layer. early tells that there are changes already which it will not have.
func (js *Journals) beginJournal(p pool.Pool, h journalHeader, early bool, shorten func()) (j *journal, err error) {
	if h.files, err = filesOf(p, h.layer); err != nil {
		return nil, err
	}
	path := js.path(h.layer, h.Opening)
	if early {
		path += earlyName
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("layer: the journal: %w", err)
	}
	j = &journal{all: js, shorten: shorten, path: path, file: f, seed: h.seed(), next: 1, early: early}
	for i := range j.halves {
		j.halves[i].from = pageSize + int64(i)*halfSize
	}
	// It has all of its length at once, as a hole, so that one which was cut off is told from one that is empty.
	_, err = f.WriteAt(h.encode(), 0)
	if err = errors.Join(err, f.Truncate(journalSize)); err != nil {
		return nil, errors.Join(fmt.Errorf("layer: the journal: %w", err), j.drop())
	}
	return j, nil
}

// add keeps a change.
func (j *journal) add(c Change) error {
	h := &j.halves[j.now]
	if len(h.rest) == 0 {
		if err := j.grow(h); err != nil {
			return err
		}
	}
	// Pieces are pages, and entries lie side by side; all processors that this is built for have the low bytes first.
	e := (*entry)(unsafe.Pointer(&h.rest[0]))
	e[0], e[1], e[2] = uint64(c.Block)<<2|uint64(c.State), uint64(c.Blocks), j.next
	atomic.StoreUint64(&e[3], proof(j.seed, h.rest))
	h.rest = h.rest[entrySize:]
	if h.used += entrySize; h.used == fullHalf {
		j.shorten()
	}
	j.next++
	return nil
}

// grow makes room for more entries. It is allocated before it is touched: memory of a file without room ends the process.
func (j *journal) grow(h *half) error {
	n := int64(laterPiece)
	if len(h.mapped) == 0 {
		n = firstPiece
	}
	at := h.size()
	if at+n > halfSize {
		return fmt.Errorf("layer: the journal is full: %w", syscall.ENOSPC)
	}
	if err := j.all.take(j, n); err != nil {
		return err
	}
	fd := int(j.file.Fd())
	err := syscall.Fallocate(fd, 0, h.from+at, n)
	if err == nil {
		var p []byte
		if p, err = syscall.Mmap(fd, h.from+at, int(n), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED|syscall.MAP_POPULATE); err == nil {
			h.mapped, h.rest = append(h.mapped, p), p
			return nil
		}
	}
	j.all.give(j, n, false)
	return fmt.Errorf("layer: room for the journal: %w", err)
}

// takeOff begins a half for the changes that the flush which begins now does not cover. While the other one is still needed, since the
// last flush had no room, both kinds go into one: a change that is durable already may be made again.
func (j *journal) takeOff() {
	if other := 1 - j.now; j.halves[other].used == 0 && j.halves[j.now].used > 0 {
		j.now = other
	}
}

// landed drops what came before the flush that has just succeeded. What an early journal lacks is durable from then on.
func (j *journal) landed() error {
	j.clear(&j.halves[1-j.now])
	if !j.early {
		return nil
	}
	path := j.path[:len(j.path)-len(earlyName)]
	if err := os.Rename(j.path, path); err != nil {
		return fmt.Errorf("layer: the journal: %w", err)
	}
	j.path, j.early = path, false
	return nil
}

// clear empties a half. Its first entry goes first: without that the rest counts for nothing.
func (j *journal) clear(h *half) {
	if h.used == 0 {
		return
	}
	clear(h.mapped[0][:entrySize])
	for _, p := range h.mapped {
		clear(p[:min(h.used, int64(len(p)))])
		h.used -= min(h.used, int64(len(p)))
	}
	if more := h.size() - firstPiece; more > 0 {
		const punchHole = 3 // FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE of fallocate(2)
		_ = syscall.Fallocate(int(j.file.Fd()), punchHole, h.from+firstPiece, more)
		h.unmap(1)
		j.all.give(j, more, false)
	}
	h.rest = h.mapped[0]
}

// drop ends a journal that nobody may believe any more. Where it can't be removed it is made unreadable.
func (j *journal) drop() error {
	_, spoiled := j.file.WriteAt(make([]byte, len(journalMagic)), 0)
	removed := os.Remove(j.path)
	j.close()
	if spoiled != nil && removed != nil {
		return fmt.Errorf("layer: a journal that is not true any more can't be removed: %w", errors.Join(removed, spoiled))
	}
	return nil
}

// close lets go of the memory; the file stays.
func (j *journal) close() {
	j.all.give(j, j.halves[0].size()+j.halves[1].size(), true)
	for i := range j.halves {
		j.halves[i].unmap(0)
	}
	_ = j.file.Close() // nothing was written through it that anybody waits for
}
