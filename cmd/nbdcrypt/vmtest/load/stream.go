// Package load writes to a disk what can be held against it afterwards: streams of changes that follow from a seed alone, in sectors
// that say which change wrote them. What was acknowledged as durable must be there after a power cut, newer may be, and nothing else.
//
// It is for tests: the load runs in a virtual machine that is cut, the verification in the one that comes after.
package load

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
)

// Sector is the smallest piece that is written, and that can be told from others.
const Sector = 512

// Plan is what all workers together do. Each has a part of the target to itself, so that the order of its changes is known.
type Plan struct {
	Seed    uint64
	Workers int
	Sectors int   // of each worker's part
	Stride  int64 // bytes from the beginning of one part to the next
	Whole   bool  // only whole blocks of 4096 bytes become zeros: smaller pieces are more than a device of such sectors can do
}

// kind is what a change does.
type kind int

const (
	write kind = iota
	durable
	zero
	reserve // zeros too, but the space is kept
)

// change is one change: sectors of the worker's part.
type change struct {
	kind     kind
	first, n int
	flush    bool // afterwards
}

// longest is how many sectors a change has at most: whole blocks and parts of them.
const longest = 40

// change is the worker's change of that number, from 1.
func (p Plan) change(worker int, number uint64) change {
	rng := rand.New(rand.NewPCG(p.Seed<<8|uint64(worker), number))
	c := change{first: rng.IntN(p.Sectors - longest), n: 1 + rng.IntN(longest), flush: rng.IntN(12) == 0}
	whole := rng.IntN(4) == 0
	switch kind := rng.IntN(16); {
	case kind < 2:
		c.kind = durable
	case kind < 4 && c.first >= p.zeroable():
		c.kind = zero
	case kind < 6 && c.first >= p.zeroable():
		c.kind = reserve
	}
	if whole || p.Whole && c.zeros() {
		c.first, c.n = c.first&^7, max(8, c.n&^7)
	}
	return c
}

// zeroable is the first sector of a part that changes may make zeros. Zeros do not say who wrote them, so where a later change could have, a loss might
// go unseen; before that sector none can.
func (p Plan) zeroable() int { return p.Sectors * 3 / 4 }

// zeros tells a change after which its sectors are zeros.
func (c change) zeros() bool { return c.kind == zero || c.kind == reserve }

func (c change) covers(sector int) bool { return sector >= c.first && sector < c.first+c.n }

// at is where a sector of a worker's part is in the target.
func (p Plan) at(worker, sector int) int64 {
	return int64(worker)*p.Stride + int64(sector)*Sector
}

// content is what a change writes to its sectors.
func (p Plan) content(worker int, number uint64, first, n int) []byte {
	data := make([]byte, 0, n*Sector)
	for s := first; s < first+n; s++ {
		data = p.appendSector(data, worker, number, s)
	}
	return data
}

// appendSector appends a sector: which change, of which worker and sector, and a noise that follows from those.
func (p Plan) appendSector(data []byte, worker int, number uint64, sector int) []byte {
	data = binary.BigEndian.AppendUint64(data, number)
	noise := rand.NewPCG(p.Seed<<8|uint64(worker), number<<32|uint64(sector))
	for range Sector/8 - 1 {
		data = binary.BigEndian.AppendUint64(data, noise.Uint64())
	}
	return data
}

// written tells which change wrote a sector: 0 for zeros, false for what none did.
func (p Plan) written(worker, sector int, data []byte) (number uint64, ok bool) {
	number = binary.BigEndian.Uint64(data)
	if number == 0 {
		return 0, !bytes.ContainsFunc(data, func(r rune) bool { return r != 0 })
	}
	if !bytes.Equal(data, p.appendSector(nil, worker, number, sector)) {
		return 0, false
	}
	c := p.change(worker, number)
	return number, c.covers(sector) && !c.zeros()
}
