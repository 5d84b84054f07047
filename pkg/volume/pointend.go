package volume

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
)

// dropPoint ends a point, available or half made: its keys, its reference, its record. It needs no key and no room. Its layer goes with it
// where nobody else refers to that; the layer that the point had is told, for whoever wants to merge it. The caller has taken
// the point.
func (s *Service) dropPoint(ctx context.Context, request string, p pointRecord) (layer uuid.UUID, err error) {
	return s.dropPointUnless(ctx, request, p, nil)
}

// dropPointUnless is dropPoint of what nothing may hold.
func (s *Service) dropPointUnless(ctx context.Context, request string, p pointRecord, held held) (layer uuid.UUID, err error) {
	err = s.update(ctx, request, func(t catalog.Txn) error {
		now, err := get(t, p.key(), parsePoint)
		if err != nil {
			return ifThere(err)
		}
		if err := held.ask(t, p.Kind, p.ID); err != nil {
			return err
		}
		now.Status = Deleting
		layers, err := keystore.HeldLayers(t, p.holder())
		if err != nil {
			return err
		}
		return errors.Join(keystore.DropDEKs(t, p.holder(), layers[:min(dropsAtOnce, len(layers))]...), put(t, p.key(), now))
	})
	if err == nil {
		err = s.dropDEKs(ctx, p.holder())
	}
	if err == nil {
		err = s.update(ctx, "drop-"+uuid.NewString(), func(t catalog.Txn) (err error) {
			layer, err = forgetPoint(t, p)
			return err
		})
	}
	if err != nil {
		return uuid.Nil, err
	}
	return layer, s.finish(ctx, layer)
}

func ifThere(err error) error {
	if errors.Is(err, catalog.ErrNotFound) {
		return nil
	}
	return err
}

// forgetPoint takes a point's record away with all that names it, and tells which layer it had.
func forgetPoint(t catalog.Txn, p pointRecord) (layer uuid.UUID, err error) {
	now, err := get(t, p.key(), parsePoint)
	if err != nil {
		return uuid.Nil, ifThere(err)
	}
	if now.Layer != uuid.Nil {
		err = dropRef(t, now.Layer, p.Kind, p.ID)
	}
	return now.Layer, errors.Join(err, dropNameOf(t, p.nameKey(), p.ID), t.Delete(p.ofKey()), t.Delete(p.key()))
}

// removePointsOf ends the snapshots of a disk that goes.
func (s *Service) removePointsOf(ctx context.Context, d diskRecord) error {
	list, err := s.pointsWith(ctx, d)
	for _, p := range list {
		if err == nil {
			_, err = s.dropPoint(ctx, "drop-"+uuid.NewString(), p)
		}
	}
	return err
}

// takePoints takes all snapshots of a disk, so that nobody makes anything of them while they go.
func (s *Service) takePoints(ctx context.Context, d diskRecord) (free func(), err error) {
	list, err := s.pointsWith(ctx, d)
	var taken []func()
	free = func() {
		for _, f := range taken {
			f()
		}
	}
	for _, p := range list {
		var f func()
		if err == nil {
			f, err = s.takePoint(p)
		}
		if err == nil {
			taken = append(taken, f)
		}
	}
	if err != nil {
		free()
		return nil, err
	}
	return free, nil
}
