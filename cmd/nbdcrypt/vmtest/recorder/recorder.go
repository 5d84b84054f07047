// Package recorder is a disk that remembers every write, and when each was answered and flushed. From that it builds what a
// power cut at any moment could have left behind: whatever a completed flush covered, and of the rest any part, in any order,
// torn at any sector. A system that runs on it can thus be cut a hundred times in one run.
//
// It is for tests: the log grows for as long as the disk is written.
package recorder

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Sector is what storage writes whole, or not at all.
const Sector = 512

// Point is a moment in the life of a disk.
type Point int64

// write is one write, trim or zeroing.
type write struct {
	off, n int64
	at     int64 // where the log has its bytes; negative for zeros
	fua    bool
	begun  Point
	ended  Point
}

// flush is one flush. It covers the writes that had ended when it began: what was in flight beside it may be lost after it.
type flush struct{ begun, ended Point }

// Disk is the recording disk. It implements nbd.Device.
type Disk struct {
	size  int64
	now   *os.File // what reads return
	log   *os.File // the bytes of all writes, one after the other
	clock atomic.Int64

	mu      sync.Mutex
	logged  int64
	writes  []write
	flushes []flush
}

// New makes a disk of zeros that keeps its content and its log in dir, in files without a name.
func New(dir string, size int64) (*Disk, error) {
	now, err := unnamed(dir)
	if err != nil {
		return nil, err
	}
	log, err := unnamed(dir)
	if err != nil {
		return nil, errors.Join(err, now.Close())
	}
	if err := now.Truncate(size); err != nil {
		return nil, errors.Join(err, now.Close(), log.Close())
	}
	return &Disk{size: size, now: now, log: log}, nil
}

func unnamed(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "recorder")
	if err != nil {
		return nil, fmt.Errorf("recorder: %w", err)
	}
	return f, os.Remove(f.Name())
}

// Close gives the space back.
func (d *Disk) Close() error { return errors.Join(d.now.Close(), d.log.Close()) }

// Size implements nbd.Device.
func (d *Disk) Size() (int64, error) { return d.size, nil }

// ReadAt implements nbd.Device.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	if err := d.inside(off, int64(len(p))); err != nil {
		return 0, err
	}
	return d.now.ReadAt(p, off)
}

// WriteAt implements nbd.Device.
func (d *Disk) WriteAt(p []byte, off int64) (int, error) { return d.write(p, off, false) }

// WriteAtFUA implements nbd.FUAWriter.
func (d *Disk) WriteAtFUA(p []byte, off int64) (int, error) { return d.write(p, off, true) }

func (d *Disk) write(p []byte, off int64, fua bool) (int, error) {
	if err := d.inside(off, int64(len(p))); err != nil {
		return 0, err
	}
	err := d.record(write{off: off, n: int64(len(p)), fua: fua}, p)
	return len(p), err
}

// TrimAt implements nbd.Trimmer: what was trimmed reads as zeros.
func (d *Disk) TrimAt(off, n int64) error { return d.ZeroAt(off, n, false) }

// ZeroAt implements nbd.Zeroer.
func (d *Disk) ZeroAt(off, n int64, _ bool) error {
	if err := d.inside(off, n); err != nil {
		return err
	}
	return d.record(write{off: off, n: n, at: -1}, nil)
}

// record puts a write into the log and into the content, both in one order: of writes that overlap, the log's last is the one
// that is read.
func (d *Disk) record(w write, data []byte) error {
	w.begun = d.tick()
	d.mu.Lock()
	defer d.mu.Unlock()
	if data != nil {
		w.at = d.logged
		if _, err := d.log.WriteAt(data, w.at); err != nil {
			return fmt.Errorf("recorder: log: %w", err)
		}
		d.logged += w.n
	}
	if err := put(d.now, w, data); err != nil {
		return err
	}
	w.ended = d.tick()
	d.writes = append(d.writes, w)
	return nil
}

func (d *Disk) tick() Point { return Point(d.clock.Add(1)) }

// put carries a write out on a file, where zeros become holes.
func put(f *os.File, w write, data []byte) error {
	if w.at >= 0 {
		_, err := f.WriteAt(data, w.off)
		return err
	}
	if w.n == 0 {
		return nil
	}
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, w.off, w.n)
}

// Sync implements nbd.Device. A write that was answered before is durable once this is.
func (d *Disk) Sync() error {
	begun := d.tick()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flushes = append(d.flushes, flush{begun: begun, ended: d.tick()})
	return nil
}

// Now is the present moment. Whatever the system on the disk has said until now must hold in every image of it.
func (d *Disk) Now() Point { return Point(d.clock.Load()) }

// Flushes is how many flushes were answered.
func (d *Disk) Flushes() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.flushes)
}

func (d *Disk) inside(off, n int64) error {
	if off < 0 || n < 0 || off > d.size-n {
		return fmt.Errorf("recorder: %d bytes at %d of %d: %w", n, off, d.size, syscall.EINVAL)
	}
	return nil
}
