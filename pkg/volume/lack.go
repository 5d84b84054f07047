package volume

import (
	"context"
	"syscall"

	"github.com/google/uuid"

	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume/layer"
)

// mapped is an open layer of which only the map is looked at, which takes no key.
type mapped struct {
	*layer.Layer
	size int64
}

// lack is what the first of some layers lacks that those below it have: bytes of data, and whether there are zeros that hide what
// stands below all of them.
type lack struct {
	data  int64
	zeros bool
}

func (l lack) nothing() bool { return l.data == 0 && !l.zeros }

// lacks walks the maps of layers, top first. over tells that more stands below them.
func lacks(ctx context.Context, layers []mapped, over bool) (total lack, err error) {
	end := int64(0)
	for _, l := range layers[1:] {
		end = max(end, layer.DataSize(l.size))
	}
	for off := int64(0); off < end; {
		if err := ctx.Err(); err != nil {
			return total, err
		}
		state, to, err := layers[0].runTo(off, end)
		if err == nil && state == layer.Absent {
			state, to, err = below(layers[1:], off, to)
			switch {
			case state == layer.Data:
				total.data += to - off
			case state != layer.Absent && over:
				total.zeros = true
			}
		}
		if err != nil {
			return total, err
		}
		off = to
	}
	return total, nil
}

// below tells what the first layer that has anything at off has there.
func below(layers []mapped, off, end int64) (state layer.State, to int64, err error) {
	for _, l := range layers {
		if state, end, err = l.runTo(off, end); err != nil || state != layer.Absent {
			return state, end, err
		}
	}
	return layer.Absent, end, nil
}

// runTo is Run of what a layer has; past its end that is nothing.
func (m mapped) runTo(off, end int64) (layer.State, int64, error) {
	room := layer.DataSize(m.size)
	if off >= room {
		return layer.Absent, end, nil
	}
	return m.Run(off, min(end, room), true)
}

// openMaps opens layers for reading their maps; those that st, which may be nil, has open it borrows.
func (s *Service) openMaps(ctx context.Context, st *Stack, layers []layerRecord) (open []mapped, done func(), err error) {
	var mine []*layer.Layer
	done = func() {
		for _, l := range mine {
			_ = l.Close() // it was only read
		}
	}
	for _, l := range layers {
		if st != nil {
			if theirs, is := st.find(l.ID); is {
				open = append(open, mapped{theirs, l.Size})
				continue
			}
		}
		own, err := layer.Open(ctx, s.Pool, l.header(), l.Size, layer.Options{ReadOnly: true})
		if err != nil {
			done()
			return nil, nil, err
		}
		mine = append(mine, own)
		open = append(open, mapped{own, l.Size})
	}
	return open, done, nil
}

// lacking is what the frozen upper end of a chain lacks.
func (s *Service) lacking(ctx context.Context, c *chain) (lack, error) {
	open, done, err := s.openMaps(ctx, nil, append([]layerRecord{c.upper}, c.lower...))
	if err != nil {
		return lack{}, err
	}
	defer done()
	return lacks(ctx, open, c.under != uuid.Nil)
}

// floor is how much room long work leaves in the pool, so that it takes the last of it from nobody who writes.
func floor(space pool.Space) int64 {
	return min(max(1<<30, space.Total/50), space.Total/10)
}

// room refuses to copy so many bytes where the pool would be left with less than the floor. A pool that does not tell its space has room.
func (s *Service) room(bytes int64) error {
	space, err := s.Pool.Space()
	if err != nil || space.Free-bytes >= floor(space) {
		return nil
	}
	return refusal.New(refusal.Failed, "make room in the pool's file system", "%w: %d bytes are to be copied, and the pool has %d bytes free, "+
		"of which %d are left to those who write", syscall.ENOSPC, bytes, space.Free, floor(space))
}
