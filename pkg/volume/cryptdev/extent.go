package cryptdev

import (
	"errors"
	"fmt"
	"syscall"

	"nbdcrypt/pkg/volume/layer"
)

// extentLooks bounds how many runs of the map one extent is put together of. A record is 62 MiB at most, so that an extent
// of a uniform disk is nearly 4 GiB long, as long as most clients can ask for.
const extentLooks = 64

// HideHoles makes all of the disk look like data. It is called before the disk is exported.
func (d *Device) HideHoles() { d.hideHoles = true }

// Extent describes the run that begins at off: zeros that take no space (hole, zero), zeros that do (zero), or data. It ends
// at off+n at the latest, and before that where it took too many looks to say more.
func (d *Device) Extent(off, n int64) (length int64, hole, zero bool, err error) {
	if err := d.check(off, n, false); err != nil || n == 0 {
		return 0, false, false, err
	}
	if d.hideHoles {
		return n, false, false, nil
	}
	d.using.RLock()
	defer d.using.RUnlock()
	st, end := d.stack.Load(), off+n
	is, to, err := st.resolve(off, end)
	if err != nil {
		return 0, false, false, err
	}
	for looks := 1; looks < extentLooks && to < end; looks++ {
		next, further, err := st.resolve(to, end)
		if err != nil || next != is {
			break // an error is for who asks for that place
		}
		to = further
	}
	return to - off, is == layer.Zero, is != layer.Data, nil
}

// resolve tells what the disk holds at off, and up to where, at most to end, that is so: Data, Reserved, or Zero, which
// blocks are that no layer has.
func (s *stack) resolve(off, end int64) (layer.State, int64, error) {
	for depth := range s.layers {
		l := &s.layers[depth]
		if room := layer.DataSize(l.Size); depth > 0 && off >= room {
			break
		} else if depth > 0 {
			end = min(end, room)
		}
		state, to, err := l.Run(off, end, true)
		if err != nil || state != layer.Absent {
			return state, to, err
		}
		end = to
	}
	return layer.Zero, end, nil
}

// cacheMost bounds how much is read ahead for one call.
const cacheMost = 32 << 20

// CacheAt starts reading a range into memory. It does not wait for the map: what stands there is read ahead too, with the
// data that may be there.
func (d *Device) CacheAt(off, n int64) error {
	if err := d.check(off, n, false); err != nil {
		return err
	}
	d.using.RLock()
	defer d.using.RUnlock()
	return d.stack.Load().prefetch(0, off, off+min(n, cacheMost))
}

func (s *stack) prefetch(depth int, off, end int64) error {
	if depth == len(s.layers) {
		return nil
	}
	l := &s.layers[depth]
	if depth > 0 {
		end = min(end, layer.DataSize(l.Size))
	}
	for off < end {
		state, to, err := l.Run(off, end, false)
		switch {
		case errors.Is(err, syscall.EAGAIN):
			err = errors.Join(l.PrefetchMap(off), l.Prefetch(off, to-off))
		case err == nil && state == layer.Data:
			err = l.Prefetch(off, to-off)
		case err == nil && state == layer.Absent:
			err = s.prefetch(depth+1, off, to)
		}
		if err != nil {
			return fmt.Errorf("cryptdev: read ahead: %w", err)
		}
		off = to
	}
	return nil
}
