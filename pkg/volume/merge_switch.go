package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/volume/layer"
)

// swap puts the new layer into the place of those that it was made of, in the catalog and in what is attached. Nobody opens their stacks
// meanwhile, or makes another holder of them. All that can fail comes before the commit.
func (g *merging) swap(ctx context.Context) error {
	g.tree.Lock()
	defer g.tree.Unlock()
	list, err := g.shareAll(ctx)
	if err != nil {
		return err
	}
	users, err := g.openForUsers(ctx)
	if err == nil {
		err = g.commit(ctx, list)
	}
	for a, in := range users {
		if err != nil {
			err = errors.Join(err, a.Stack.end(in, nil))
			continue
		}
		if failed := a.replace(g.out(), in); failed != nil {
			g.Log.Error("an attached disk keeps layers that were merged", "disk", a.Name, "err", failed)
			_ = a.Stack.end(in, nil) // it was opened for this, and only read
		}
	}
	return err
}

// isRelink tells a merge that copies nothing: the upper layer stays, and stands on what stood below those that go.
func (g *merging) isRelink() bool { return g.m.ID == g.m.Upper }

// out are the layers that go.
func (g *merging) out() []uuid.UUID {
	if g.isRelink() {
		return g.m.Lower
	}
	return append([]uuid.UUID{g.m.Upper}, g.m.Lower...)
}

// shareAll has everybody who stands on the upper layer hold the DEK of the new one, under his own key.
func (g *merging) shareAll(ctx context.Context) (list []sharer, err error) {
	if g.isRelink() || !g.c.upper.Encrypted {
		return nil, nil
	}
	if list, err = g.holders(ctx); err != nil {
		return nil, err
	}
	records := make([]keystore.Record, len(list))
	for i, h := range list {
		if records[i], err = g.Keys.ShareDEK(ctx, h.project, h.key, g.m.holder(), h.Holder, g.m.ID.String()); err != nil {
			return nil, fmt.Errorf("the key of %s is needed: %w", h.label, err)
		}
	}
	return list, g.putDEKs(ctx, records)
}

// openForUsers opens the new layer for every attached disk that stands on it. Its cipher they share with the merge: they have the same data
// open already, whatever has become of their keys.
func (g *merging) openForUsers(ctx context.Context) (users map[*Attachment][]openLayer, err error) {
	users = map[*Attachment][]openLayer{}
	for _, a := range g.Attachments() {
		if _, stands := a.find(g.m.Upper); !stands {
			continue
		}
		users[a] = nil
		if g.isRelink() {
			continue
		}
		mine := g.made.opened()[0]
		open, err := layer.Open(ctx, g.Pool, mine.Header, mine.size, layer.Options{ReadOnly: true})
		if err != nil {
			return users, err
		}
		in := openLayer{Layer: open, size: mine.size}
		if mine.cipher.cipher != nil {
			in.cipher = g.ciphers.share(mine.cipher)
		}
		users[a] = []openLayer{in}
	}
	return users, nil
}

// commit makes it so, if all is as it was when it was looked at.
func (g *merging) commit(ctx context.Context, shared []sharer) error {
	switched := g.m
	switched.Switched, switched.Open = true, nil
	err := g.update(ctx, "merge-switch-"+uuid.NewString(), func(t catalog.Txn) error {
		if same, err := g.c.same(t); err != nil || !same {
			return errors.Join(err, errGiveWay)
		}
		if shared != nil {
			now, err := standing(t, g.m.Upper)
			if err != nil || !slices.Equal(now.sharers(), shared) {
				return errors.Join(err, errGiveWay)
			}
		}
		if err := put(t, mergeKey(switched.ID), switched); err != nil {
			return err
		}
		if g.c.under != uuid.Nil {
			if err := addRef(t, g.c.under, layerRef, g.m.ID); err != nil {
				return err
			}
		}
		return g.relink(t)
	})
	if err == nil {
		g.m = switched
	}
	return err
}

// relink changes the layers' records.
func (g *merging) relink(t catalog.Txn) error {
	upper, err := get(t, layerKey(g.m.Upper), parseLayer)
	if err != nil {
		return err
	}
	if g.isRelink() {
		upper.Parent = g.c.under
		return errors.Join(put(t, layerKey(upper.ID), upper), dropRef(t, g.m.Lower[0], layerRef, upper.ID))
	}
	made, err := get(t, layerKey(g.m.ID), parseLayer)
	if err != nil {
		return err
	}
	made.Parent, made.Sealed = g.c.under, true
	upper.Merged = made.ID
	return errors.Join(put(t, layerKey(made.ID), made), put(t, layerKey(upper.ID), upper))
}

// movesAtOnce is how many of those that refer to a layer one commit has refer to another: three operations each.
const movesAtOnce = 16

// finish has everybody refer to the new layer, and lets go of the old ones with their DEKs.
func (g *merging) finish(ctx context.Context) error {
	for moved := g.isRelink(); !moved; {
		err := g.update(ctx, "merge-move-"+uuid.NewString(), func(t catalog.Txn) (err error) {
			moved, err = g.move(t)
			return err
		})
		if err != nil {
			return err
		}
	}
	var now holders
	err := g.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		now, err = standing(r, g.m.ID)
		return err
	})
	if err != nil {
		return err
	}
	if err := g.moveFills(ctx, now); err != nil {
		return err
	}
	for _, h := range now.sharers() {
		if err := g.trimDEKs(ctx, h.Holder); err != nil {
			return err
		}
	}
	if err := errors.Join(g.dropDEKs(ctx, g.m.holder()), g.Service.finish(ctx, g.out()[0]), g.Service.finish(ctx, g.m.ID)); err != nil {
		return err
	}
	return g.update(ctx, "merge-end-"+uuid.NewString(), func(t catalog.Txn) error { return t.Delete(mergeKey(g.m.ID)) })
}

// move has some of those that refer to the upper layer refer to the new one. With the last the upper layer is doomed; where nobody was
// left by then, so is the new one.
func (g *merging) move(t catalog.Txn) (all bool, err error) {
	list, err := refs(t, g.m.Upper)
	if err != nil {
		return false, err
	}
	some := list[:min(movesAtOnce, len(list))]
	for _, ref := range some {
		if err := errors.Join(addRef(t, g.m.ID, ref.Kind, ref.ID), moveRef(t, ref, g.m.ID), t.Delete(refKey(g.m.Upper, ref.Kind, ref.ID))); err != nil {
			return false, err
		}
	}
	if len(list) > len(some) {
		return false, nil
	}
	if left, err := refs(t, g.m.ID); err != nil || len(left) == 0 {
		return true, errors.Join(err, doom(t, g.m.ID), doom(t, g.m.Upper))
	}
	return true, doom(t, g.m.Upper)
}

// moveRef has whoever refers name another layer.
func moveRef(t catalog.Txn, ref ref, to uuid.UUID) error {
	if ref.Kind == layerRef {
		l, err := get(t, layerKey(ref.ID), parseLayer)
		if err != nil {
			return err
		}
		l.Parent = to
		return put(t, layerKey(l.ID), l)
	}
	p, err := get(t, pointKey(ref.Kind, ref.ID), parsePoint)
	if err != nil {
		return err
	}
	p.Layer = to
	return put(t, p.key(), p)
}

// moveFills has the fills that end at the upper layer end at the new one.
func (g *merging) moveFills(ctx context.Context, now holders) error {
	for _, d := range now.disks {
		if d.Fill == nil || d.Fill.Until != g.m.Upper {
			continue
		}
		err := g.update(ctx, "merge-fill-"+uuid.NewString(), func(t catalog.Txn) error {
			d, err := get(t, diskKey(d.ID), parseDisk)
			if err != nil || d.Fill == nil || d.Fill.Until != g.m.Upper {
				return ifThere(err)
			}
			d.Fill.Until = g.m.ID
			return put(t, diskKey(d.ID), d)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
