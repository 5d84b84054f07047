package cryptdev

import (
	"encoding/binary"
	"fmt"
	"syscall"

	"nbdcrypt/pkg/volume/layer"
)

// ReadAt reads any range of the disk.
func (d *Device) ReadAt(p []byte, off int64) (int, error) {
	if err := d.check(off, int64(len(p)), false); err != nil {
		return 0, err
	}
	st, held := d.lock(off, int64(len(p)), false)
	defer held.Unlock()
	if err := d.read(st.layers, p, off, true); err != nil {
		return 0, err
	}
	return len(p), nil
}

// ReadAtNowait is ReadAt for what is in memory, map and data, and for what nobody is writing. For anything else it is
// syscall.EAGAIN, which costs nothing to make, and p holds nothing of use.
func (d *Device) ReadAtNowait(p []byte, off int64) (int, error) {
	if err := d.check(off, int64(len(p)), false); err != nil {
		return 0, err
	}
	st, held, ok := d.tryLock(off, int64(len(p)))
	if !ok {
		return 0, syscall.EAGAIN
	}
	defer held.Unlock()
	if err := d.read(st.layers, p, off, false); err != nil {
		return 0, err
	}
	return len(p), nil
}

// read fills p from layers, the first of which has room for all of it. The caller holds the range's lock.
func (d *Device) read(layers []Layer, p []byte, off int64, wait bool) error {
	l := &layers[0]
	for len(p) > 0 {
		state, end, err := l.Run(off, off+int64(len(p)), wait)
		if err != nil {
			return err
		}
		piece := p[:end-off]
		switch state {
		case layer.Absent:
			err = d.readBelow(layers[1:], piece, off, wait)
		case layer.Data:
			err = d.readData(l, piece, off, wait)
		default:
			clear(piece)
		}
		if err != nil {
			return err
		}
		p, off = p[len(piece):], end
	}
	return nil
}

// readBelow fills p with what layers below another hold; past their end there are zeros.
func (d *Device) readBelow(layers []Layer, p []byte, off int64, wait bool) error {
	room := int64(0)
	if len(layers) > 0 {
		room = min(int64(len(p)), max(0, layer.DataSize(layers[0].Size)-off))
	}
	clear(p[room:])
	if room == 0 {
		return nil
	}
	return d.read(layers, p[:room], off, wait)
}

// readData reads blocks that l holds: whole sectors straight into p, a part of a sector by way of a buffer.
func (d *Device) readData(l *Layer, p []byte, off int64, wait bool) error {
	if l.Cipher == nil {
		return l.ReadAt(p, off, wait)
	}
	if head := off % int64(d.sector); head != 0 {
		n := min(d.sector-int(head), len(p))
		if err := d.readPart(l, p[:n], off, wait); err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	whole := len(p) / d.sector * d.sector
	if err := d.readSectors(l, p[:whole], off, wait); err != nil {
		return err
	}
	if whole == len(p) {
		return nil
	}
	return d.readPart(l, p[whole:], off+int64(whole), wait)
}

// readPart reads a piece of one sector.
func (d *Device) readPart(l *Layer, p []byte, off int64, wait bool) error {
	buf := d.buffer(int64(d.sector))
	defer d.release(buf)
	sector := (*buf)[:d.sector]
	defer clear(sector) // it holds plaintext
	start := off / int64(d.sector) * int64(d.sector)
	if err := d.readSectors(l, sector, start, wait); err != nil {
		return err
	}
	copy(p, sector[off-start:])
	return nil
}

// readSectors reads and decrypts whole sectors in place, a piece at a time so that it is decrypted while cached.
func (d *Device) readSectors(l *Layer, p []byte, off int64, wait bool) error {
	for len(p) > 0 {
		piece := p[:min(len(p), pieceSize)]
		if err := l.ReadAt(piece, off, wait); err != nil {
			return err
		}
		if err := d.lookForHoles(l, piece, off); err != nil {
			return err
		}
		l.Cipher.Decrypt(piece, piece, d.sector, uint64(off)/512)
		p, off = p[len(piece):], off+int64(len(piece))
	}
	return nil
}

// lookForHoles refuses ciphertext of zeros: a hole where the map says data, which would decrypt to noise. The first bytes
// of a sector tell almost always.
func (d *Device) lookForHoles(l *Layer, p []byte, off int64) error {
	for at := 0; at < len(p); at += d.sector {
		if binary.LittleEndian.Uint64(p[at:]) == 0 && layer.IsZero(p[at:at+d.sector]) {
			clear(p)
			return fmt.Errorf("cryptdev: %w: the sector at byte %d of layer %s is gone from the data volume (%w)",
				layer.ErrDamaged, off+int64(at), l.ID, syscall.EIO)
		}
	}
	return nil
}
