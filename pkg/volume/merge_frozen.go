package volume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume/layer"
)

// merging is a merge into a frozen layer that runs.
type merging struct {
	*Service
	m       mergeRecord
	c       *chain
	w       Work
	made    *Stack // the layer that it makes, open for writing
	sources *Stack // what it is made of
}

// mergeFrozen merges a chain with the frozen layer that stands on it. Where all of the chain is hidden it goes without copying anything,
// which takes no key.
func (s *Service) mergeFrozen(ctx context.Context, c *chain, always bool, w Work) error {
	lack, err := s.lacking(ctx, c)
	if err != nil {
		return err
	}
	g := &merging{Service: s, c: c, w: w, m: mergeRecord{Version: recordVersion, ID: c.upper.ID, Upper: c.upper.ID, Lower: c.ids(), Made: true}}
	if lack.nothing() {
		w.begun()
		if err := g.swap(ctx); err != nil {
			return err
		}
		return g.finish(context.WithoutCancel(ctx))
	}
	if !always {
		if worth, err := s.worth(ctx, c); err != nil || !worth {
			return err
		}
	}
	if err := s.room(lack.data); err != nil {
		return err
	}
	w.begun()
	g.m.ID, g.m.Made = uuid.New(), false
	if err := g.make(ctx); err != nil {
		return errors.Join(err, g.abandon(context.WithoutCancel(ctx)))
	}
	return g.run(ctx)
}

// make makes the new layer. Its DEK is the merge's own until all who need it have it. Every key that will be needed is asked for first.
func (g *merging) make(ctx context.Context) error {
	upper := g.c.upper
	list, err := g.holders(ctx)
	if err != nil {
		return err
	}
	l := layerRecord{Version: recordVersion, ID: g.m.ID, Size: upper.Size, SectorSize: upper.SectorSize, Encrypted: upper.Encrypted,
		Created: g.Clock.Now(), Frozen: true}
	err = g.update(ctx, "merge-begin-"+uuid.NewString(), func(t catalog.Txn) error {
		if same, err := g.c.same(t); err != nil || !same {
			return errors.Join(err, errGiveWay)
		}
		return errors.Join(put(t, mergeKey(g.m.ID), g.m), put(t, layerKey(l.ID), l))
	})
	if err != nil {
		return err
	}
	if l.Encrypted {
		dek, err := g.Keys.GenerateDEKUnder(ctx, list[0].project, list[0].key, g.m.holder(), l.ID.String(), l.SectorSize)
		if err == nil {
			err = g.putDEKs(ctx, []keystore.Record{dek})
		}
		if err != nil {
			return err
		}
	}
	if err := layer.Create(ctx, g.Pool, l.header(), l.Size); err != nil {
		return err
	}
	g.m.Made = true
	return g.keep(ctx)
}

// keep keeps the record as it is now.
func (g *merging) keep(ctx context.Context) error {
	return g.update(ctx, "merge-keep-"+uuid.NewString(), func(t catalog.Txn) error { return put(t, mergeKey(g.m.ID), g.m) })
}

// run copies what is not copied yet, and puts the new layer into its place.
func (g *merging) run(ctx context.Context) error {
	if g.trees.try(g.m.ID) == nil {
		defer g.trees.unlock(g.m.ID)
	}
	if !g.m.Switched {
		err := g.open(ctx)
		if err == nil {
			err = g.copy(ctx)
		}
		if err == nil {
			err = g.swap(ctx)
		}
		if err = errors.Join(err, g.close()); err != nil {
			return err
		}
	}
	return g.finish(context.WithoutCancel(ctx))
}

// close closes what open has opened.
func (g *merging) close() (err error) {
	for _, st := range []*Stack{g.made, g.sources} {
		if st != nil {
			err = errors.Join(err, st.close(nil))
		}
	}
	return err
}

// open opens the new layer, and what it is made of with the keys of the first who holds that.
func (g *merging) open(ctx context.Context) error {
	list, err := g.holders(ctx)
	if err != nil {
		return err
	}
	var from sharer // what is plain needs nobody's key
	if len(list) > 0 {
		from = list[0]
	}
	for _, id := range g.m.Open {
		if err := g.Pool.Fence(ctx, id); err != nil {
			return err
		}
	}
	g.tree.RLock()
	defer g.tree.RUnlock()
	var l layerRecord
	err = g.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		l, err = get(r, layerKey(g.m.ID), parseLayer)
		return err
	})
	if err != nil {
		return err
	}
	const label = "a merge of layers"
	if g.made, err = g.openStack(ctx, g.m.holder(), from.project, label, []layerRecord{l}, l.Size, stackOptions{Unclean: true}); err != nil {
		return err
	}
	sources := append([]layerRecord{g.c.upper}, g.c.lower...)
	if g.sources, err = g.openStack(ctx, from.Holder, from.project, label, sources, l.Size, stackOptions{Frozen: true}); err == nil {
		err = g.w.released(g.sources)
	}
	if err != nil {
		return err
	}
	g.m.Open = g.made.identities()
	return g.keep(ctx)
}

// sharer is who holds the DEKs of a stack: the key that they are under, and how a refusal names it.
type sharer struct {
	keystore.Holder
	project, key, label string
}

// sharers are who has to hold the DEK of a layer, of those that stand on it. What is plain, and the anchors of backups, hold none.
func (h holders) sharers() (list []sharer) {
	for _, d := range h.disks {
		if d.Encrypted {
			list = append(list, sharer{holder(d), d.Project, d.Key, d.label()})
		}
	}
	for _, p := range h.points {
		if p.Encrypted && p.Kind != BackupKind {
			list = append(list, sharer{p.holder(), p.Project, p.Key, p.label()})
		}
	}
	slices.SortFunc(list, func(a, b sharer) int { return cmp.Compare(a.Kind+a.ID, b.Kind+b.ID) })
	return list
}

// holders are who holds the upper layer now. A key of one that can't be used refuses: what is encrypted has to be so for all of them.
func (g *merging) holders(ctx context.Context) (list []sharer, err error) {
	err = g.Catalog.View(ctx, func(r catalog.Reader) error {
		h, err := standing(r, g.c.upper.ID)
		list = h.sharers()
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, h := range list {
		if _, err := g.Keys.May(ctx, h.project, h.key, keystore.Use); err != nil {
			return nil, fmt.Errorf("the key of %s is needed: %w", h.label, err)
		}
	}
	if len(list) == 0 && g.c.upper.Encrypted {
		return nil, refusal.New(refusal.KeyForbids, "delete the backups that are made of it, or leave it", "nobody has the key of layer %s any more", g.c.upper.ID)
	}
	return list, nil
}
