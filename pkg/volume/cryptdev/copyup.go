package cryptdev

import (
	"nbdcrypt/pkg/volume/layer"
)

// copyStep is how much is copied under one lock, which keeps out who wants to write there.
const copyStep = 1 << 20

// CopyUp brings into the top what it lacks in [off, end) and the next depth layers have, one step of it. It returns where to go
// on, and how many bytes of data it copied. over tells that more stands below those layers: then zeros become zeros of the
// top, else they stay absent, which reads the same.
func (d *Device) CopyUp(off, end int64, depth int, over bool) (next, copied int64, err error) {
	off, end = off/layer.BlockSize*layer.BlockSize, layer.DataSize(min(end, d.size.Load()))
	if err := d.check(0, 0, true); err != nil {
		return off, 0, err
	}
	if err := d.Failed(); err != nil {
		return off, 0, err
	}
	off, err = d.nextLack(off, end, depth, over)
	if err != nil || off >= end {
		return end, 0, err
	}
	next = min(end, off/copyStep*copyStep+copyStep)
	// The lock is a reader's: no write comes between the look at the map and the copy, and other readers find the same bytes
	// whether they meet a block before it was copied or after.
	st, held := d.lock(off, next-off, false)
	defer held.Unlock()
	copied, err = d.copyUp(st, off, next, depth, over)
	return next, copied, err
}

// nextLack is the first place from off on that has to be copied, as it looks without a lock, or a place further on where a
// long search pauses.
func (d *Device) nextLack(off, end int64, depth int, over bool) (int64, error) {
	d.using.RLock()
	defer d.using.RUnlock()
	st := d.stack.Load()
	for looks := 0; off < end && looks < extentLooks; looks++ {
		state, to, err := st.lack(off, end, depth)
		if err != nil || state == layer.Data || state != layer.Absent && over {
			return off, err
		}
		off = to
	}
	return off, nil
}

// lack tells what the top lacks at off and the depth layers below it have, and up to where that is so: Absent where the top has
// the block, or none of them does.
func (s *stack) lack(off, end int64, depth int) (layer.State, int64, error) {
	state, to, err := s.top().Run(off, end, true)
	if err != nil || state != layer.Absent {
		return layer.Absent, to, err
	}
	end = to
	for i := 1; i <= min(depth, len(s.layers)-1); i++ {
		l := &s.layers[i]
		if off >= layer.DataSize(l.Size) {
			break
		}
		if state, to, err = l.Run(off, min(end, layer.DataSize(l.Size)), true); err != nil || state != layer.Absent {
			return state, to, err
		}
		end = to
	}
	return layer.Absent, end, nil
}

// copyUp copies what is to be copied in [off, end), which the caller keeps writers out of.
func (d *Device) copyUp(st *stack, off, end int64, depth int, over bool) (copied int64, err error) {
	for off < end {
		state, to, err := st.lack(off, end, depth)
		switch {
		case err != nil:
		case state == layer.Data:
			to = min(to, off+longSize)
			if err = d.copyPiece(st, off, to); err == nil {
				copied += to - off
			}
		case state != layer.Absent && over:
			err = st.top().Zero(off, to-off, false)
		}
		if err != nil {
			return copied, err
		}
		off = to
	}
	return copied, nil
}

// copyPiece copies whole blocks that are data below the top. Plaintext is in one pooled buffer, and not after it.
func (d *Device) copyPiece(st *stack, off, end int64) error {
	pooled := d.buffer(end - off)
	defer d.release(pooled)
	buf := (*pooled)[:end-off]
	if err := d.readBelow(st.layers[1:], buf, off, true); err != nil {
		return err // and buf holds no plaintext: it is read at once, and what was not read whole was not decrypted
	}
	d.encrypt(st.top(), buf, buf, off)
	return st.top().WriteNew(buf, off)
}
