package volume

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/volume/layer"
)

// resume takes up a merge that ended early. The caller has the lock of its tree.
func (s *Service) resume(ctx context.Context, m mergeRecord, w Work) error {
	w.begun()
	g, err := s.clear(ctx, m)
	if err != nil || g.c == nil {
		return err
	}
	g.w = w
	if g.m.Made {
		return g.run(ctx)
	}
	if err := g.abandon(ctx); err != nil {
		return err
	}
	return s.mergeFrozen(ctx, g.c, true, w)
}

// clear ends a merge that has nothing left to copy: it was switched, or what it was about is not there any more. One that has has its chain.
func (s *Service) clear(ctx context.Context, m mergeRecord) (g *merging, err error) {
	g = &merging{Service: s, m: m}
	if m.Switched {
		return g, g.finish(ctx)
	}
	err = s.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		g.c, err = recorded(r, m)
		return err
	})
	if err != nil || g.c != nil {
		return g, err
	}
	return g, g.abandon(ctx)
}

// endMerges ends, at a start, the merges that have nothing left to copy.
func (s *Service) endMerges(ctx context.Context) error {
	list, err := s.merges(ctx)
	for _, m := range list {
		if err == nil {
			_, err = s.clear(ctx, m)
		}
		if isDamage(err) {
			s.cannot("merge "+m.ID.String(), err)
			err = nil
		}
	}
	return err
}

// recorded is the chain that a merge is about, nil where that is not what it was.
func recorded(r catalog.Reader, m mergeRecord) (*chain, error) {
	c := &chain{}
	var err error
	if c.upper, err = get(r, layerKey(m.Upper), parseLayer); err != nil {
		return nil, ifThere(err)
	}
	for _, id := range m.Lower {
		l, err := get(r, layerKey(id), parseLayer)
		if err != nil {
			return nil, ifThere(err)
		}
		c.lower = append(c.lower, l)
		c.under = l.Parent
	}
	same, err := c.same(r)
	if err != nil || !same || len(c.lower) == 0 {
		return nil, err
	}
	return c, nil
}

// mergePending goes on with the merges that ended early in the tree of a layer.
func (s *Service) mergePending(ctx context.Context, id uuid.UUID, w Work) error {
	root, err := s.rootOf(ctx, id)
	if err != nil {
		return ifThere(err)
	}
	list, err := s.merges(ctx)
	for _, m := range list {
		at, gone := s.rootOf(ctx, m.Upper)
		switch {
		case err != nil:
		case errors.Is(gone, catalog.ErrNotFound) && s.trees.try(m.ID) == nil: // and it does not run
			_, err = s.clear(ctx, m)
			s.trees.unlock(m.ID)
		case gone == nil && at == root:
			err = s.resume(ctx, m, w)
		}
	}
	return err
}

// merges are those that are not done.
func (s *Service) merges(ctx context.Context) (list []mergeRecord, err error) {
	err = s.Catalog.View(ctx, func(r catalog.Reader) error {
		return catalog.Each(r, mergePrefix, func(p catalog.Pair) error {
			m, err := parseMerge(p.Key, p.Value)
			list = append(list, m)
			return err
		})
	})
	return list, err
}

// abandon takes back a merge that was not switched. All is read through the old layers still.
func (g *merging) abandon(ctx context.Context) error {
	for _, id := range g.m.Open {
		if err := g.Pool.Fence(ctx, id); err != nil {
			return err
		}
	}
	if err := errors.Join(layer.Delete(ctx, g.Pool, g.m.ID), g.dropDEKs(ctx, g.m.holder())); err != nil {
		return err
	}
	var h holders
	err := g.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		h, err = standing(r, g.m.Upper)
		return err
	})
	for _, held := range h.sharers() { // the switch may have shared the new layer's DEK already
		if err == nil {
			err = g.trimDEKs(ctx, held.Holder)
		}
	}
	if err != nil {
		return err
	}
	return g.update(ctx, "merge-abandon-"+uuid.NewString(), func(t catalog.Txn) error {
		return errors.Join(t.Delete(layerKey(g.m.ID)), t.Delete(mergeKey(g.m.ID)))
	})
}
