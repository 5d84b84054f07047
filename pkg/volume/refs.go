package volume

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume/layer"
)

// References keep layers alive: empty records at ref/LAYER/KIND/ID, where KIND is a kind of point, `layer` for a layer that stands on it,
// or `disk` for the disk whose top it is. A disk's first layer has none, as in stores from before there were any. They change in
// the commit of what they stand for.
const layerRef = "layer"

func refsOf(id uuid.UUID) string { return "ref/" + id.String() + "/" }

func refKey(of uuid.UUID, kind string, id uuid.UUID) string {
	return refsOf(of) + kind + "/" + id.String()
}

const (
	doomedPrefix = "doomed/"
	makingPrefix = "making/"
)

func doomedKey(id uuid.UUID) string { return doomedPrefix + id.String() }

// makingKey marks a layer that is being made: where nothing took the mark away by the next start, the layer goes. Its value is who has a
// DEK record of it by then.
func makingKey(id uuid.UUID) string { return makingPrefix + id.String() }

// ref is who refers to a layer.
type ref struct {
	Kind string
	ID   uuid.UUID
}

// refs are the references to a layer.
func refs(r catalog.Reader, of uuid.UUID) (list []ref, err error) {
	prefix := refsOf(of)
	err = catalog.EachName(r, prefix, func(key string) error {
		kind, text, _ := strings.Cut(strings.TrimPrefix(key, prefix), "/")
		id, err := uuid.Parse(text)
		if err != nil {
			return fmt.Errorf("%w: record %q names nobody", catalog.ErrDamaged, key)
		}
		list = append(list, ref{kind, id})
		return nil
	})
	return list, err
}

// addRef has a layer be kept. It refuses one that is on its way out.
func addRef(t catalog.Txn, of uuid.UUID, kind string, id uuid.UUID) error {
	l, err := get(t, layerKey(of), parseLayer)
	if err != nil {
		return err
	}
	_, err = t.Get(doomedKey(of))
	if err == nil || l.Merged != uuid.Nil {
		return refusal.New(refusal.Busy, "try again", "layer %s has been merged or dropped meanwhile", of)
	}
	if !errors.Is(err, catalog.ErrNotFound) {
		return err
	}
	return t.Put(refKey(of, kind, id), nil)
}

// dropRef takes a reference away, where it is there. A layer that loses its last one is doomed in the same commit; whoever commits
// calls finish then.
func dropRef(t catalog.Txn, of uuid.UUID, kind string, id uuid.UUID) error {
	_, err := t.Get(refKey(of, kind, id))
	if errors.Is(err, catalog.ErrNotFound) {
		return nil
	}
	if err := errors.Join(err, t.Delete(refKey(of, kind, id))); err != nil {
		return err
	}
	left, err := t.Names(refsOf(of), "", 1)
	if err != nil || len(left) > 0 {
		return err
	}
	return doom(t, of)
}

// doom has a layer go: its files, then its record, then what only it stood on.
func doom(t catalog.Txn, id uuid.UUID) error { return t.Put(doomedKey(id), nil) }

// finish removes a layer if it is doomed, and then those below it that are doomed with it.
func (s *Service) finish(ctx context.Context, id uuid.UUID) error {
	s.dooming.Lock()
	defer s.dooming.Unlock()
	for id != uuid.Nil {
		doomed, err := s.isDoomed(ctx, id)
		if err != nil || !doomed {
			return err
		}
		if id, err = s.end(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) isDoomed(ctx context.Context, id uuid.UUID) (doomed bool, err error) {
	err = s.Catalog.View(ctx, func(r catalog.Reader) error {
		_, err := r.Get(doomedKey(id))
		if doomed = err == nil; errors.Is(err, catalog.ErrNotFound) {
			return nil
		}
		return err
	})
	return doomed, err
}

// finishDoomed ends what a crash kept from being ended. cannot is told of what is damaged, and stays.
func (s *Service) finishDoomed(ctx context.Context, cannot func(layer uuid.UUID, err error)) error {
	var list []uuid.UUID
	err := s.Catalog.View(ctx, func(r catalog.Reader) error {
		return eachID(r, doomedPrefix, func(id uuid.UUID) error { list = append(list, id); return nil })
	})
	for _, id := range list {
		if failed := s.finish(ctx, id); isDamage(failed) {
			cannot(id, failed)
		} else if failed != nil {
			err = errors.Join(err, fmt.Errorf("volume: remove layer %s: %w", id, failed))
		}
	}
	return err
}

// end removes one doomed layer, and tells what stood below it. Its record, which names that, goes last.
func (s *Service) end(ctx context.Context, id uuid.UUID) (below uuid.UUID, err error) {
	if err := layer.Delete(ctx, s.Pool, id); err != nil {
		return uuid.Nil, err
	}
	err = s.update(ctx, "end-"+uuid.NewString(), func(t catalog.Txn) (err error) {
		below, err = dropLayer(t, id)
		return err
	})
	return below, err
}

// dropLayer takes a layer's record away once its files are gone, with the marks that it may have. It tells what stood below it, which may
// be doomed now.
func dropLayer(t catalog.Txn, id uuid.UUID) (below uuid.UUID, err error) {
	l, err := get(t, layerKey(id), parseLayer)
	if err = ifThere(err); err == nil && l.Parent != uuid.Nil {
		err = dropRef(t, l.Parent, layerRef, id)
	}
	return l.Parent, errors.Join(err, t.Delete(layerKey(id)), t.Delete(doomedKey(id)), t.Delete(makingKey(id)))
}

// eachID calls fn with the ids that stand in an index behind a prefix. What is none is told when all others had their turn.
func eachID(r catalog.Reader, prefix string, fn func(uuid.UUID) error) error {
	var damaged error
	err := catalog.EachName(r, prefix, func(key string) error {
		id, err := uuid.Parse(key[len(prefix):])
		if err != nil {
			damaged = fmt.Errorf("%w: record %q names nothing", catalog.ErrDamaged, key)
			return nil
		}
		return fn(id)
	})
	return errors.Join(err, damaged)
}
