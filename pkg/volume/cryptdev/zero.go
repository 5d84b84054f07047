package cryptdev

import (
	"fmt"
	"syscall"

	"nbdcrypt/pkg/volume/layer"
)

// reserveStep is how much is allocated at a time; reads wait for it.
const reserveStep = 4 << 20

var zeros [layer.BlockSize]byte

// TrimAt gives up a range: it reads as zeros, and its space may come back. Over a parent too it becomes zero, never
// absent, which would let old data show through.
func (d *Device) TrimAt(off, n int64) error { return d.ZeroAt(off, n, false) }

// ZeroAt makes a range read as zeros. With noHole its space is allocated when it returns. It goes in steps, so that others
// get their turn.
func (d *Device) ZeroAt(off, n int64, noHole bool) error {
	if err := d.check(off, n, true); err != nil {
		return err
	}
	if err := d.Failed(); err != nil {
		return err
	}
	for end := off + n; off < end; {
		to := min(end, layer.StepEnd(off))
		if noHole {
			to = min(to, off/reserveStep*reserveStep+reserveStep)
		}
		if err := d.zeroStep(off, to, noHole); err != nil {
			return err
		}
		off = to
	}
	return nil
}

// ZeroAtFast is ZeroAt where that writes no data: where the range is whole blocks, or what else it touches is zeros already,
// and where space can be allocated without writing.
func (d *Device) ZeroAtFast(off, n int64, noHole bool) error {
	if err := d.check(off, n, true); err != nil {
		return err
	}
	fast, err := d.zeroIsFast(off, off+n, noHole)
	if err != nil {
		return err
	}
	if !fast {
		return fmt.Errorf("cryptdev: zeros at byte %d to %d would have to be written: %w", off, off+n, syscall.ENOTSUP)
	}
	return d.ZeroAt(off, n, noHole)
}

func (d *Device) zeroIsFast(off, end int64, noHole bool) (bool, error) {
	d.using.RLock()
	defer d.using.RUnlock()
	st := d.stack.Load()
	if noHole && !st.top().FastReserve() {
		return false, nil
	}
	s := spanOf(off, end, layer.BlockSize)
	for _, at := range []int64{s.off, s.end} {
		if at%layer.BlockSize == 0 || at == d.size.Load() && off <= at/layer.BlockSize*layer.BlockSize {
			continue
		}
		if is, _, err := st.resolve(at, at+1); err != nil || is == layer.Data {
			return false, err
		}
	}
	return true, nil
}

// zeroStep zeros [off, end) under one lock.
func (d *Device) zeroStep(off, end int64, noHole bool) error {
	st, held := d.lock(off, end-off, true)
	defer held.Unlock()
	// Nobody sees what is past the end, so the last block is whole. That is asked under the lock, which covers all of
	// the block: once the disk has grown, who writes there waits for us, or has written before we ask.
	if end == d.size.Load() {
		end = layer.DataSize(end)
	}
	return d.zero(st, off, end, noHole)
}

// zero splits [off, end) into whole blocks and the parts of blocks before and after them.
func (d *Device) zero(st *stack, off, end int64, noHole bool) error {
	const block = layer.BlockSize
	first, last := (off+block-1)/block*block, end/block*block
	if first > last {
		return d.zeroPart(st, off, end, noHole)
	}
	if off < first {
		if err := d.zeroPart(st, off, first, noHole); err != nil {
			return err
		}
	}
	if err := d.zeroBlocks(st, first, last, noHole); err != nil {
		return err
	}
	if last < end {
		return d.zeroPart(st, last, end, noHole)
	}
	return nil
}

// zeroBlocks zeros whole blocks, leaving alone those that are as asked already.
func (d *Device) zeroBlocks(st *stack, off, end int64, noHole bool) error {
	for off < end {
		zero, to, err := st.isZero(off, end, noHole)
		if err == nil && !zero {
			err = st.top().Zero(off, to-off, noHole)
		}
		if err != nil {
			return err
		}
		off = to
	}
	return nil
}

// isZero tells whether what is at off reads as zeros, with its space allocated in the top layer where that is asked for, and
// up to where it is alike.
func (s *stack) isZero(off, end int64, allocated bool) (zero bool, to int64, err error) {
	if allocated {
		state, to, err := s.top().Run(off, end, true)
		return state == layer.Reserved, to, err
	}
	state, to, err := s.resolve(off, end)
	return state != layer.Data, to, err
}

// zeroPart zeros a part of one block.
func (d *Device) zeroPart(st *stack, off, end int64, noHole bool) error {
	if done, _, err := st.isZero(off, end, noHole); err != nil || done {
		return err
	}
	zero, _, err := st.isZero(off, end, false)
	if err != nil {
		return err
	}
	if zero { // all of the block is zeros, and lacks only its space
		return st.top().Zero(off/layer.BlockSize*layer.BlockSize, layer.BlockSize, true)
	}
	_, err = d.writePieces(st, zeros[:end-off], off, false)
	return err
}
