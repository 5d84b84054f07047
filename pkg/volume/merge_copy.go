package volume

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume/cryptdev"
	"nbdcrypt/pkg/volume/layer"
)

// copy brings into the new layer all that its sources have. It may end at any time: what is there stays.
func (g *merging) copy(ctx context.Context) error {
	parts := []cryptdev.Layer{g.made.opened()[0].part()}
	for _, l := range g.sources.opened() {
		parts = append(parts, l.part())
	}
	size, over := g.c.upper.Size, g.c.under != uuid.Nil
	total := layer.DataSize(size)
	copier := copier{s: g.Service, device: cryptdev.New(parts, size, false), progress: func(off int64) error { g.w.progress(off, total); return nil }}
	for off := int64(0); off < total; {
		next, err := copier.step(ctx, off, total, len(parts)-1, over)
		if err != nil {
			return errors.Join(g.stopped(err, off, total), copier.device.Sync())
		}
		off = next
	}
	if err := g.made.opened()[0].Seal(); err != nil {
		return err
	}
	left, err := lacks(ctx, append(g.made.mapped(), g.sources.mapped()...), over)
	if err == nil && !left.nothing() {
		err = fmt.Errorf("volume: layer %s lacks %d bytes after it was made", g.m.ID, left.data)
	}
	return err
}

func (g *merging) stopped(err error, off, total int64) error {
	if errors.Is(err, context.Canceled) {
		return refusal.New(refusal.Failed, "it goes on from there with the next deletion of a snapshot there, or the daemon's next start",
			"interrupted: %d of %d bytes are merged", off, total)
	}
	return err
}
