//go:build integration

package integration

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"nbdcrypt/nbd/nbdclient"
)

// load writes to a disk on several connections until they break, and knows for each sector what it may hold then: what the
// last acknowledged flush or FUA write covered, or anything written since.
type load struct {
	sector  int
	workers []*worker
	flushes atomic.Int64
}

// worker owns a part of the disk, so that what it knows needs no lock.
type worker struct {
	load     *load
	first    int64      // sector
	possible [][]uint64 // for each sector of its part: versions since the last flush, the oldest first
	version  uint64
	waits    map[int]bool // sectors of the change that has no answer yet
	rng      *rand.Rand
	ended    error
}

const (
	workers     = 4
	partSectors = 1024
)

func newLoad(sector int) *load {
	l := &load{sector: sector}
	for i := range workers {
		w := &worker{load: l, first: int64(i) * partSectors, possible: make([][]uint64, partSectors), rng: rand.New(rand.NewPCG(1, uint64(i)))}
		for s := range w.possible {
			w.possible[s] = []uint64{0}
		}
		l.workers = append(l.workers, w)
	}
	return l
}

// size is how large the disk must be.
func (l *load) size() int64 { return int64(l.sector) * workers * partSectors }

// start lets the workers write; wait returns when all their connections have broken.
func (l *load) start(t *testing.T, uri string) (wait func()) {
	t.Helper()
	var all sync.WaitGroup
	for _, w := range l.workers {
		c := dial(t, uri)
		all.Go(func() { w.ended = w.run(c) })
	}
	return all.Wait
}

// run writes, trims and flushes until the connection breaks.
func (w *worker) run(c *nbdclient.Client) error {
	for i := 1; ; i++ {
		if err := w.change(c); err != nil {
			return err
		}
		if i%16 == 0 {
			if err := c.Flush(); err != nil {
				return err
			}
			w.settle(0, partSectors)
			w.load.flushes.Add(1)
		}
	}
}

// change writes or trims a random run of sectors. Version 0 is zeros.
func (w *worker) change(c *nbdclient.Client) error {
	s := w.rng.IntN(partSectors)
	n := 1 + w.rng.IntN(min(32, partSectors-s))
	at := (w.first + int64(s)) * int64(w.load.sector)
	w.version++
	var err error
	switch w.rng.IntN(8) {
	case 0:
		err = c.Trim(at, int64(len(w.expect(s, n, 0))))
	case 1:
		if _, err = c.WriteAtFUA(w.expect(s, n, w.version), at); err == nil {
			w.settle(s, n)
		}
	default:
		_, err = c.WriteAt(w.expect(s, n, w.version), at)
	}
	if err == nil {
		w.waits = nil
	}
	return err
}

// expect notes that sectors may get a version, and returns what they hold then.
func (w *worker) expect(s, n int, version uint64) (data []byte) {
	w.waits = map[int]bool{}
	for i := s; i < s+n; i++ {
		w.waits[i] = true
		w.possible[i] = append(w.possible[i], version)
		data = append(data, w.load.content(w.first+int64(i), version)...)
	}
	return data
}

// settle notes that the latest version of sectors is durable.
func (w *worker) settle(s, n int) {
	for i := s; i < s+n; i++ {
		w.possible[i] = w.possible[i][len(w.possible[i])-1:]
	}
}

// drained is called after a good end, which keeps whatever was acknowledged, flushed or not.
func (l *load) drained() {
	for _, w := range l.workers {
		for s, list := range w.possible {
			keep := 1
			if w.waits[s] {
				keep = 2
			}
			w.possible[s] = list[max(0, len(list)-keep):]
		}
	}
}

// content is a sector that names itself and its version all over.
func (l *load) content(sector int64, version uint64) []byte {
	if version == 0 {
		return make([]byte, l.sector)
	}
	word := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(sector)|1<<63), version)
	return bytes.Repeat(word, l.sector/len(word))
}

// verify reads every sector: it must hold one of its possible versions, whole, and from then on holds just that.
func (l *load) verify(t *testing.T, uri string) {
	t.Helper()
	c := dial(t, uri)
	for _, w := range l.workers {
		all := read(t, c, w.first*int64(l.sector), partSectors*l.sector)
		for s, list := range w.possible {
			got := all[s*l.sector:][:l.sector]
			version := binary.BigEndian.Uint64(got[8:])
			if !slices.Contains(list, version) || !bytes.Equal(got, l.content(w.first+int64(s), version)) {
				t.Fatalf("sector %d holds %x…, which is none of versions %d", w.first+int64(s), got[:16], list)
			}
			w.possible[s] = []uint64{version}
		}
	}
}

// waitForFlushes waits until the load is well under way.
func (l *load) waitForFlushes(t *testing.T, n int64) {
	t.Helper()
	enough := l.flushes.Load() + n
	waitFor(t, "the load does not flush", func() bool { return l.flushes.Load() >= enough })
}
