//go:build integration

package integration

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/integration/faultfs"
)

// storm writes to a disk whose storage fails every now and then, and knows for each sector what it may hold.
type storm struct {
	*ailing
	t        *testing.T
	load     *load // for what sectors look like
	possible [][]uint64
	version  uint64
	rng      *rand.Rand
	failed   int
}

const stormSectors = 8192

// Whatever fails below but syncs: a request that failed leaves each of its sectors as it was or as it was to be, one that succeeded is there, then
// and after a detach, and the connection lasts.
func TestFaultStorm(t *testing.T) {
	eachAiling(t, "256M", func(t *testing.T, a *ailing) {
		s := &storm{ailing: a, t: t, load: newLoad(a.show(a.disk).SectorSize), rng: rand.New(rand.NewPCG(5, 5))}
		check(t, a.c.Trim(0, 256<<10))
		for range stormSectors {
			s.possible = append(s.possible, []uint64{0})
		}
		for range 25 {
			s.inject()
			for range 10 {
				s.change()
			}
			a.fs.Heal()
			check(t, a.c.Flush())
			s.verify()
		}
		if s.failed < 25 {
			t.Errorf("of 250 requests %d failed", s.failed)
		}
		a.do("detach", a.disk)
		a.c = dial(t, a.attach(a.disk))
		s.verify()
	})
}

// inject has some of the next operations fail.
func (s *storm) inject() {
	for _, f := range []struct {
		op    faultfs.Op
		file  string
		errno syscall.Errno
	}{
		{faultfs.Write, s.data, syscall.EIO}, {faultfs.Write, s.data, syscall.ENOSPC}, {faultfs.Read, s.data, syscall.EIO},
		{faultfs.Allocate, s.data, syscall.ENOSPC}, {faultfs.Allocate, s.mp, syscall.EIO}, {faultfs.Read, s.mp, syscall.EIO},
		{faultfs.Write, s.mp, syscall.ENOSPC},
	} {
		s.fs.Inject(faultfs.Fault{Op: f.op, File: f.file, Errno: f.errno, Skip: s.rng.IntN(8), Times: 1 + s.rng.IntN(2)})
	}
	s.fs.Inject(faultfs.Fault{Op: faultfs.Write, Short: true, Skip: s.rng.IntN(4)})
}

// change writes, zeroes, trims, reads or flushes a run of sectors, and notes what may be there then. The sectors lie far apart in eight groups, so that
// several records of the map are about them.
func (s *storm) change() {
	first := s.rng.IntN(stormSectors)
	n := 1 + s.rng.IntN(min(64, stormSectors/8-first%(stormSectors/8)))
	at, size := s.at(first), int64(n*s.load.sector)
	s.version++
	version := s.version
	var err error
	switch s.rng.IntN(8) {
	case 0:
		version, err = 0, s.c.Trim(at, size)
	case 1:
		version, err = 0, s.c.Zero(at, size, true)
	case 2:
		if err := s.c.Flush(); err != nil {
			s.note(err)
		}
		return
	default:
		var data []byte
		for i := first; i < first+n; i++ {
			data = append(data, s.load.content(int64(i), version)...)
		}
		_, err = s.c.WriteAt(data, at)
	}
	for i := first; i < first+n; i++ {
		if err == nil {
			s.possible[i] = nil
		}
		s.possible[i] = append(s.possible[i], version)
	}
	if err != nil {
		s.note(err)
	}
}

func (s *storm) at(sector int) int64 {
	return int64(sector/(stormSectors/8))*(30<<20) + int64(sector%(stormSectors/8)*s.load.sector)
}

func (s *storm) note(err error) {
	s.failed++
	if !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.ENOSPC) {
		s.t.Fatalf("a request failed with %v", err)
	}
}

// verify reads every sector: it must hold one of its versions, whole, and holds just that from then on.
func (s *storm) verify() {
	s.t.Helper()
	for group := range 8 {
		first := group * stormSectors / 8
		all := read(s.t, s.c, s.at(first), stormSectors/8*s.load.sector)
		for i, got := range slices.Collect(slices.Chunk(all, s.load.sector)) {
			version := binary.BigEndian.Uint64(got[8:])
			if list := s.possible[first+i]; !slices.Contains(list, version) || !bytes.Equal(got, s.load.content(int64(first+i), version)) {
				s.t.Fatalf("sector %d holds %x…, which is none of versions %d", first+i, got[:16], list)
			}
			s.possible[first+i] = []uint64{version}
		}
	}
}
