package cryptdev

import (
	"nbdcrypt/pkg/volume/layer"
)

// WriteAt writes any range of the disk.
func (d *Device) WriteAt(p []byte, off int64) (int, error) { return d.write(p, off, false) }

// WriteAtFUA writes a range that is durable when it returns.
func (d *Device) WriteAtFUA(p []byte, off int64) (int, error) { return d.write(p, off, true) }

// WriteOut has what was written to a range begin to go to storage, for who writes much and syncs once.
func (d *Device) WriteOut(off, n int64) error {
	if err := d.check(off, n, true); err != nil {
		return err
	}
	d.using.RLock()
	defer d.using.RUnlock()
	return d.stack.Load().top().WriteOut(off, n)
}

func (d *Device) write(p []byte, off int64, fua bool) (int, error) {
	if err := d.check(off, int64(len(p)), true); err != nil {
		return 0, err
	}
	if err := d.Failed(); err != nil {
		return 0, err
	}
	top, durable, err := d.writeLocked(p, off, fua)
	// The flush comes after the lock is gone: a flush gives back space, and waits for locks to do so. By then the layer may
	// have been pushed down, or sealed, which has made it durable.
	if err == nil && fua && !durable {
		err = top.Flush()
	}
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (d *Device) writeLocked(p []byte, off int64, fua bool) (top *Layer, durable bool, err error) {
	st, held := d.lock(off, int64(len(p)), true)
	defer held.Unlock()
	durable, err = d.writePieces(st, p, off, fua)
	return st.top(), durable, err
}

// writePieces writes p in pieces that each lie in blocks of one kind: blocks that hold data, where whole sectors are
// written, or in a plain disk any bytes; and blocks that do not, where whole blocks are. The caller holds the range's lock,
// so no block changes its kind meanwhile.
func (d *Device) writePieces(st *stack, p []byte, off int64, fua bool) (durable bool, err error) {
	durable = true
	for len(p) > 0 {
		state, end, err := st.top().Run(off, off+int64(len(p)), true)
		if err != nil {
			return false, err
		}
		s := spanOf(off, end, d.unit(st, state))
		if st.top().Cipher != nil || !s.aligned() {
			s = spanOf(off, min(end, cut(off, longSize)), s.unit)
		}
		done, err := d.writePiece(st, p[:s.end-s.off], s, state, fua)
		if err != nil {
			return false, err
		}
		durable = durable && done
		p, off = p[s.end-s.off:], s.end
	}
	return durable, nil
}

// unit is what is written whole in a block of this state.
func (d *Device) unit(st *stack, state layer.State) int64 {
	switch {
	case state != layer.Data:
		return layer.BlockSize
	case st.top().Cipher == nil:
		return 1
	}
	return int64(d.sector)
}

// writePiece stores one piece, encrypted, with what it takes to fill up its units.
func (d *Device) writePiece(st *stack, p []byte, s span, state layer.State, fua bool) (durable bool, err error) {
	if s.aligned() && st.top().Cipher == nil {
		return st.store(p, s.lo, state, fua)
	}
	pooled := d.buffer(s.hi - s.lo)
	defer d.release(pooled)
	buf := (*pooled)[:s.hi-s.lo]
	if err := d.seal(st, buf, p, s); err != nil {
		return false, err
	}
	return st.store(buf, s.lo, state, fua)
}

func (s *stack) store(p []byte, off int64, state layer.State, fua bool) (durable bool, err error) {
	if state == layer.Data {
		return s.top().Write(p, off, fua)
	}
	return false, s.top().WriteNew(p, off)
}

// seal makes in buf what is to stand in the units that a piece touches. Only a first and a last one that the piece does not
// fill are read; what lies between goes straight through the cipher.
func (d *Device) seal(st *stack, buf, p []byte, s span) error {
	lo := s.lo
	if s.off > lo {
		n := min(int64(len(p)), lo+s.unit-s.off)
		if err := d.sealPart(st, buf[:s.unit], p[:n], lo, s.off-lo); err != nil {
			return err
		}
		buf, p, lo = buf[s.unit:], p[n:], lo+s.unit
	}
	whole := int64(len(p)) / s.unit * s.unit
	if rest := p[whole:]; len(rest) > 0 {
		if err := d.sealPart(st, buf[whole:], rest, lo+whole, 0); err != nil {
			return err
		}
	}
	d.encrypt(st.top(), buf[:whole], p[:whole], lo)
	return nil
}

// sealPart seals one unit, of which p is what comes from byte at on.
func (d *Device) sealPart(st *stack, unit, p []byte, lo, at int64) error {
	if err := d.read(st.layers, unit, lo, true); err != nil {
		return err // and unit holds no plaintext: what was not read whole was not decrypted
	}
	copy(unit[at:], p)
	d.encrypt(st.top(), unit, unit, lo)
	return nil
}

func (d *Device) encrypt(l *Layer, dst, src []byte, off int64) {
	if c := l.Cipher; c != nil && len(src) > 0 {
		c.Encrypt(dst, src, d.sector, uint64(off)/512)
	} else {
		copy(dst, src)
	}
}
