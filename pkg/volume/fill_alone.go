package volume

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/volume/layer"
)

// alone fills a disk that is not attached, through a stack that is open for this stretch alone. What can be written through it the
// catalog knows before the first write, as of an attachment: after a crash it is fenced, and what it left in caches is settled.
func (f *filler) alone(ctx context.Context, d diskRecord) (err error) {
	f.tree.RLock()
	st, err := f.openAlone(ctx, d)
	f.tree.RUnlock()
	if err != nil {
		return err
	}
	f.lend(d.ID, st)
	err = f.w.released(st)
	if err == nil {
		err = f.noteOpen(ctx, d, st.identities())
	}
	if err == nil {
		err = f.copyInto(ctx, d, st)
	}
	f.unlend(d.ID)
	synced := st.Device.Sync()
	err = errors.Join(err, synced, st.close(nil))
	if synced != nil {
		return err // the note stays: who opens the disk next settles it first
	}
	return errors.Join(err, f.noteOpen(context.WithoutCancel(ctx), d, nil))
}

func (f *filler) openAlone(ctx context.Context, d diskRecord) (*Stack, error) {
	left, err := f.takeOver(ctx, d)
	if err != nil {
		return nil, err
	}
	layers, err := f.stack(ctx, d)
	if err != nil {
		return nil, err
	}
	return f.openStack(ctx, holder(d), d.Project, d.label(), layers, d.Size, stackOptions{Unclean: left != nil})
}

// identities name the openings of the layers.
func (st *Stack) identities() (list []pool.Identity) {
	for _, l := range st.opened() {
		list = append(list, l.Identities()...)
	}
	return list
}

// noteOpen notes which openings a fill has of a disk that is not attached; none once they are closed in good order.
func (s *Service) noteOpen(ctx context.Context, d diskRecord, identities []pool.Identity) error {
	err := s.update(ctx, "fill-open-"+uuid.NewString(), func(t catalog.Txn) error {
		now, err := get(t, diskKey(d.ID), parseDisk)
		if err != nil {
			return err
		}
		if now.Fill == nil {
			return errGiveWay
		}
		now.Fill.Open = identities
		return put(t, diskKey(d.ID), now)
	})
	if identities == nil && (errors.Is(err, errGiveWay) || errors.Is(err, catalog.ErrNotFound)) {
		return nil // with the fill went the note
	}
	return err
}

// settleFill ends the openings that a fill of a run before this one had, and makes durable what it wrote.
func (s *Service) settleFill(ctx context.Context, d diskRecord) error {
	if d.Fill == nil || len(d.Fill.Open) == 0 {
		return nil
	}
	for _, id := range d.Fill.Open {
		if err := s.Pool.Fence(ctx, id); err != nil {
			return err
		}
	}
	layers, err := s.stack(ctx, d)
	if err != nil {
		return err
	}
	top, err := layer.Open(ctx, s.Pool, layers[0].header(), d.Size, layer.Options{Unclean: true})
	if err != nil {
		return err
	}
	if err := errors.Join(top.Flush(), top.Close()); err != nil {
		return err
	}
	return s.noteOpen(ctx, d, nil)
}
