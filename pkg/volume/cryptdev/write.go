package cryptdev

import (
	"nbdcrypt/pkg/volume/layer"
)

// WriteAt writes any range of the disk.
func (d *Device) WriteAt(p []byte, off int64) (int, error) { return d.write(p, off, false) }

// WriteAtFUA writes a range that is durable when it returns.
func (d *Device) WriteAtFUA(p []byte, off int64) (int, error) { return d.write(p, off, true) }

func (d *Device) write(p []byte, off int64, fua bool) (int, error) {
	if err := d.check(off, int64(len(p)), true); err != nil {
		return 0, err
	}
	durable, err := d.writeLocked(p, off, fua)
	// The flush comes after the lock is gone: a flush gives back space, and waits for locks to do so.
	if err == nil && fua && !durable {
		err = d.top().Flush()
	}
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (d *Device) writeLocked(p []byte, off int64, fua bool) (durable bool, err error) {
	defer d.top().Lock(off, int64(len(p)), true)()
	return d.writePieces(p, off, fua)
}

// writePieces writes p in pieces that each lie in blocks of one kind: blocks that hold data, where whole sectors are
// written, or blocks that do not, where whole blocks are. The caller holds the range's lock.
func (d *Device) writePieces(p []byte, off int64, fua bool) (durable bool, err error) {
	durable = true
	for len(p) > 0 {
		state, end, err := d.top().Run(off, off+int64(len(p)))
		if err != nil {
			return false, err
		}
		unit := int64(layer.BlockSize)
		if state == layer.Data {
			unit = int64(d.sector)
		}
		s := spanOf(off, min(end, cut(off, pieceSize)), unit)
		done, err := d.writePiece(p[:s.end-s.off], s, fua)
		if err != nil {
			return false, err
		}
		durable = durable && done
		p, off = p[s.end-s.off:], s.end
	}
	return durable, nil
}

// writePiece encrypts one piece, with what it takes to fill up its units, and stores it.
func (d *Device) writePiece(p []byte, s span, fua bool) (durable bool, err error) {
	l := d.top()
	if s.aligned() && l.Cipher == nil {
		return l.Write(p, s.lo, fua)
	}
	pooled := d.buffer()
	defer d.release(pooled)
	buf := (*pooled)[:s.hi-s.lo]
	if s.aligned() {
		l.Cipher.Encrypt(buf, p, d.sector, uint64(s.lo)/512)
		return l.Write(buf, s.lo, fua)
	}
	if err := d.fillUp(buf, p, s); err != nil {
		clear(buf) // it holds plaintext
		return false, err
	}
	if l.Cipher != nil {
		l.Cipher.Encrypt(buf, buf, d.sector, uint64(s.lo)/512)
	}
	return l.Write(buf, s.lo, fua)
}

// fillUp makes in buf the new plaintext of the units that a piece touches.
func (d *Device) fillUp(buf, p []byte, s span) error {
	if err := d.read(0, buf[:s.off-s.lo], s.lo); err != nil {
		return err
	}
	copy(buf[s.off-s.lo:], p)
	return d.read(0, buf[s.end-s.lo:], s.end)
}
