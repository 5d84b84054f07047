package cryptdev

import (
	"nbdcrypt/pkg/volume/layer"
)

// TrimAt gives up a range: it reads as zeros, and its space may come back. Over a parent too it becomes zero, never
// absent, which would let old data show through.
func (d *Device) TrimAt(off, n int64) error { return d.ZeroAt(off, n, false) }

// ZeroAt makes a range read as zeros. With noHole its space is allocated when it returns.
func (d *Device) ZeroAt(off, n int64, noHole bool) error {
	if err := d.check(off, n, true); err != nil {
		return err
	}
	if err := d.Failed(); err != nil {
		return err
	}
	defer d.top().Lock(off, n, true)()
	end := off + n
	// Nobody sees what is past the end, so the last block is whole. That is asked under the lock, which covers all of
	// the block: once the disk has grown, who writes there waits for us, or has written before we ask.
	if end == d.size.Load() {
		end = layer.DataSize(end)
	}
	return d.zero(off, end, noHole)
}

// zero splits [off, end) into whole blocks and the parts of blocks before and after them.
func (d *Device) zero(off, end int64, noHole bool) error {
	const block = layer.BlockSize
	first, last := (off+block-1)/block*block, end/block*block
	if first > last {
		return d.zeroPart(off, end, noHole)
	}
	if off < first {
		if err := d.zeroPart(off, first, noHole); err != nil {
			return err
		}
	}
	if err := d.zeroBlocks(first, last, noHole); err != nil {
		return err
	}
	if last < end {
		return d.zeroPart(last, end, noHole)
	}
	return nil
}

// zeroBlocks zeros whole blocks, leaving alone those that are as asked already.
func (d *Device) zeroBlocks(off, end int64, noHole bool) error {
	for off < end {
		state, to, err := d.top().Run(off, end)
		if err != nil {
			return err
		}
		if !d.isZero(state, noHole) {
			if err := d.top().Zero(off, to-off, noHole); err != nil {
				return err
			}
		}
		off = to
	}
	return nil
}

// isZero tells whether a block of this state reads as zeros, and is allocated where that is asked for.
func (d *Device) isZero(state layer.State, allocated bool) bool {
	switch state {
	case layer.Reserved:
		return true
	case layer.Zero:
		return !allocated
	case layer.Absent:
		return !allocated && len(d.stack) == 1
	}
	return false
}

// zeroPart zeros a part of one block.
func (d *Device) zeroPart(off, end int64, noHole bool) error {
	state, _, err := d.top().Run(off, end)
	if err != nil || d.isZero(state, noHole) {
		return err
	}
	if d.isZero(state, false) { // all of the block is zeros, and lacks only its space
		return d.top().Zero(off/layer.BlockSize*layer.BlockSize, layer.BlockSize, true)
	}
	pooled := d.buffer()
	defer d.release(pooled)
	zeros := (*pooled)[:end-off]
	clear(zeros)
	_, err = d.writePieces(zeros, off, false)
	return err
}
