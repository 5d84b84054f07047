package volume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/volume/cryptdev"
	"nbdcrypt/pkg/volume/layer"
)

// roomEvery is how much is copied until the pool is asked for its room again.
const roomEvery = 64 << 20

// copyInto fills through an open stack. What the top has when it ends stays there, so that it may end at any time.
func (f *filler) copyInto(ctx context.Context, d diskRecord, st *Stack) error {
	if f.total = layer.DataSize(d.Size); len(st.Device.Layers()) > 1 {
		f.total = layer.DataSize(st.Device.Layers()[1].Size)
	}
	copier := copier{s: f.Service, device: st.Device, progress: func(off int64) error {
		f.done = off
		f.w.progress(off, f.total)
		if f.isWanted(f.id) {
			return errGiveWay
		}
		return nil
	}}
	for off := int64(0); off < f.total; {
		depth := depthTo(st.Device.Layers(), d.Fill.Until)
		next, err := copier.step(ctx, off, f.total, depth, d.Fill.Until != uuid.Nil)
		if err != nil {
			return err
		}
		off = next
	}
	if err := st.Device.Sync(); err != nil {
		return err
	}
	return f.relink(ctx, d, st)
}

// depthTo is how many layers stand between the top and the layer until.
func depthTo(layers []cryptdev.Layer, until uuid.UUID) int {
	at := slices.IndexFunc(layers, func(l cryptdev.Layer) bool { return l.ID == until })
	if at < 0 {
		at = len(layers)
	}
	return at - 1
}

// copier copies up step by step, and looks at the pool's room now and then.
type copier struct {
	s        *Service
	device   *cryptdev.Device
	copied   int64
	progress func(off int64) error
}

func (c *copier) step(ctx context.Context, off, end int64, depth int, over bool) (int64, error) {
	if err := ctx.Err(); err != nil {
		return off, err
	}
	if c.copied%roomEvery == 0 {
		if err := c.s.room(0); err != nil {
			return off, err
		}
	}
	next, n, err := c.device.CopyUp(off, end, depth, over)
	if err != nil {
		return off, err
	}
	if c.copied/roomEvery != (c.copied+n)/roomEvery {
		if err := c.s.room(0); err != nil {
			return off, err
		}
	}
	c.copied += n
	return next, c.progress(next)
}

// relink has the top stand on what it was filled down to, once nothing is lacking there, and lets go of what stood between.
func (f *filler) relink(ctx context.Context, d diskRecord, st *Stack) error {
	ctx = context.WithoutCancel(ctx)
	out, err := f.switchTo(ctx, d, st)
	if err != nil || len(out) == 0 {
		return err
	}
	return errors.Join(f.trimDEKs(ctx, holder(d)), f.finish(ctx, out[0]))
}

// switchTo is what nobody opens the disk's layers meanwhile. It tells which layers the disk does not have any more.
func (f *filler) switchTo(ctx context.Context, d diskRecord, st *Stack) (out []uuid.UUID, err error) {
	f.tree.Lock()
	defer f.tree.Unlock()
	err = f.update(ctx, "fill-"+uuid.NewString(), func(t catalog.Txn) (err error) {
		out, err = f.relinked(ctx, t, d, st)
		return err
	})
	if err == nil && len(out) > 0 {
		err = st.replace(out, nil)
	}
	err = f.again(err)
	if err != nil && !errors.Is(err, errGiveWay) {
		err = fmt.Errorf("volume: letting go of the layers below disk %s: %w", d.Name, err)
	}
	return out, err
}

// lacksStill has a fill begin anew, since its walk of the maps finds what was not copied.
type lacksStill struct{ lack }

func (l lacksStill) Error() string {
	return fmt.Sprintf("volume: the disk still lacks %d bytes", l.data)
}

func (l lacksStill) Unwrap() error { return errGiveWay }

// again lets a fill begin anew for what it lacks, but not twice for the same: copying then sees other layers than the walk of their maps does, and
// would for ever.
func (f *filler) again(err error) error {
	var still lacksStill
	if !errors.As(err, &still) {
		return err
	}
	if f.lacked != nil && *f.lacked == still.lack {
		return fmt.Errorf("%w: %d bytes of the layers below can't be copied", layer.ErrDamaged, still.data)
	}
	f.lacked = &still.lack
	return err
}

// relinked puts that into one commit. Where the disk's layers are not those that were copied from, it begins anew.
func (f *filler) relinked(ctx context.Context, t catalog.Txn, was diskRecord, st *Stack) ([]uuid.UUID, error) {
	d, err := get(t, diskKey(was.ID), parseDisk)
	if errors.Is(err, catalog.ErrNotFound) || err == nil && (d.Top != was.Top || d.Fill == nil || d.Fill.Until != was.Fill.Until) {
		return nil, errGiveWay
	}
	if err != nil {
		return nil, err
	}
	layers, err := f.layersFrom(t, d.Top)
	if err != nil {
		return nil, err
	}
	n := slices.IndexFunc(layers, func(l layerRecord) bool { return l.ID == d.Fill.Until })
	if d.Fill.Until == uuid.Nil {
		n = len(layers)
	}
	if n < 1 || !sameLayers(st, layers) {
		return nil, errGiveWay
	}
	if left, err := lacks(ctx, st.mapped()[:n], n < len(layers)); err != nil || !left.nothing() {
		return nil, cmp.Or(err, error(lacksStill{left}))
	}
	d.Fill = nil
	if err := put(t, diskKey(d.ID), d); err != nil || n == 1 {
		return nil, err
	}
	return layerIDs(layers[1:n]), errors.Join(markTrim(t, holder(d)), moveDown(t, d, layers[0], layers[1].ID, was.Fill.Until))
}

// moveDown has a disk's top stand on another layer, or on none.
func moveDown(t catalog.Txn, d diskRecord, top layerRecord, from, to uuid.UUID) error {
	top.Parent = to
	if err := put(t, layerKey(top.ID), top); err != nil {
		return err
	}
	if to != uuid.Nil {
		if err := addRef(t, to, layerRef, top.ID); err != nil {
			return err
		}
	} else if err := t.Delete(refKey(top.ID, HolderKind, d.ID)); err != nil {
		return err
	}
	return dropRef(t, from, layerRef, top.ID)
}

func layerIDs(layers []layerRecord) (ids []uuid.UUID) {
	for _, l := range layers {
		ids = append(ids, l.ID)
	}
	return ids
}

// sameLayers tells whether an open stack has the layers of the catalog.
func sameLayers(st *Stack, layers []layerRecord) bool {
	return slices.EqualFunc(st.opened(), layers, func(open openLayer, l layerRecord) bool { return open.ID == l.ID })
}

// mapped are the layers of an open stack for who looks at their maps.
func (st *Stack) mapped() (list []mapped) {
	for _, l := range st.opened() {
		list = append(list, mapped{l.Layer, l.size})
	}
	return list
}

// replace puts layers in the place of others that follow each other, below the top, and closes those.
func (st *Stack) replace(out []uuid.UUID, in []openLayer) error {
	parts := make([]cryptdev.Layer, len(in))
	for i, l := range in {
		parts[i] = l.part()
	}
	if _, err := st.Device.Replace(out, parts); err != nil {
		return err
	}
	st.mu.Lock()
	at := slices.IndexFunc(st.layers, func(l openLayer) bool { return l.ID == out[0] })
	taken := slices.Clone(st.layers[at : at+len(out)])
	st.layers = slices.Concat(st.layers[:at], in, st.layers[at+len(out):])
	st.mu.Unlock()
	st.s.forgetJournals(st.opening, taken) // they are sealed
	return st.end(taken, nil)
}
