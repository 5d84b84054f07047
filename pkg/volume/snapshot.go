package volume

import (
	"context"
	"errors"
	"slices"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume/layer"
)

// CreateSnapshot keeps what a disk holds at this moment, attached or not, in constant time.
func (s *Service) CreateSnapshot(ctx context.Context, request, project, disk, name string) (Point, error) {
	if err := checkNameOf("a snapshot", name); err != nil {
		return Point{}, err
	}
	d, err := s.claimNow(ctx, project, disk, toSnapshot)
	if err != nil {
		return Point{}, err
	}
	defer s.release(d)
	p, err := s.madeBefore(ctx, SnapshotKind, project, name, request)
	if err == nil && p.ID == uuid.Nil {
		p = s.newPoint(SnapshotKind, name, request, d)
		err = s.making(p, func() error { return explain(d.Name, s.freeze(ctx, request, d, &p, nil)) })
	}
	if err != nil {
		return Point{}, err
	}
	return s.Point(ctx, SnapshotKind, project, p.ID.String())
}

// madeBefore is the point that the same request has made already: its answer was lost.
func (s *Service) madeBefore(ctx context.Context, kind, project, name, request string) (p pointRecord, err error) {
	err = s.Catalog.View(ctx, func(r catalog.Reader) error {
		found, err := findPoint(r, kind, project, name)
		if err == nil && found.Request == request && found.Status == Available {
			p = found
		}
		if refusal.CodeOf(err) == refusal.NotFound {
			return nil
		}
		return err
	})
	return p, explainPoint(kind, name, err)
}

// Rollback has a disk hold again what one of its snapshots holds. What was written since is gone. The disk keeps its size: what is past a
// shorter snapshot reads as zeros.
func (s *Service) Rollback(ctx context.Context, request, project, disk, snapshot string) (Disk, error) {
	d, err := s.claimNow(ctx, project, disk, toRollBack)
	if err != nil {
		return Disk{}, err
	}
	err = explain(d.Name, s.rollback(ctx, request, d, snapshot))
	s.ended(d, toRollBack, err)
	s.release(d)
	if err != nil {
		return Disk{}, err
	}
	return s.Get(ctx, project, d.ID.String())
}

func (s *Service) rollback(ctx context.Context, request string, d diskRecord, snapshot string) error {
	p, free, err := s.lookUpPoint(ctx, SnapshotKind, d.Project, snapshot)
	if err != nil {
		return err
	}
	defer free()
	switch {
	case p.Disk != d.ID:
		return refusal.New(refusal.Usage, "make a disk of it with `nbdcrypt disk create NAME --from-snapshot "+p.Name+"`",
			"snapshot %s is of disk %s, and only that can be rolled back to it", p.Name, p.DiskName)
	case d.Fill != nil && d.Fill.keeps():
		return d.Fill.refuse(d)
	}
	// So that nothing of a run that is over can still be written.
	if _, err := s.takeOver(ctx, d); err != nil {
		return err
	}
	err = s.rollTo(ctx, request, d, p)
	if errors.Is(err, catalog.ErrUnknownOutcome) {
		return err // the next start finds out
	}
	ctx = context.WithoutCancel(ctx)
	return errors.Join(err, s.finish(ctx, d.Top), s.trimDEKs(ctx, holder(d)))
}

// rollTo puts a new, empty top over the snapshot's layer in the place of the disk's.
func (s *Service) rollTo(ctx context.Context, request string, d diskRecord, p pointRecord) error {
	s.tree.RLock()
	defer s.tree.RUnlock()
	on, err := s.stackOn(ctx, d, p)
	if err != nil {
		return err
	}
	err = s.update(ctx, request+"/intent", func(t catalog.Txn) error {
		return errors.Join(put(t, layerKey(on.top.ID), on.top), t.Put(makingKey(on.top.ID), makerOf(holder(d))), markTrim(t, holder(d)))
	})
	if err != nil {
		return err
	}
	err = layer.Create(ctx, s.Pool, on.top.header(), on.top.Size)
	if err == nil {
		err = s.putDEKs(ctx, on.deks)
	}
	if err == nil {
		err = s.update(ctx, request, func(t catalog.Txn) error { return s.commitRollback(t, d, p, on) })
	}
	if err != nil && !errors.Is(err, catalog.ErrUnknownOutcome) {
		err = errors.Join(err, s.unmake(context.WithoutCancel(ctx), on.top.ID))
	}
	return err
}

func (s *Service) commitRollback(t catalog.Txn, was diskRecord, p pointRecord, on onPoint) error {
	d, err := get(t, diskKey(was.ID), parseDisk)
	if err != nil {
		return err
	}
	now, err := get(t, p.key(), parsePoint)
	if err != nil {
		return err
	}
	if d.Status != Available || d.Top != was.Top || d.Key != was.Key || d.Size != was.Size || d.Epoch != was.Epoch || now.Status != Available {
		return gone(was)
	}
	d.Top, d.Fill = on.top.ID, nil
	d.Epoch++ // who had it attached until then, and comes back, must see that this is not what he left
	return errors.Join(put(t, diskKey(d.ID), d), t.Delete(makingKey(on.top.ID)), t.Delete(attachmentKey(d.ID)),
		t.Delete(refKey(was.Top, HolderKind, d.ID)), doom(t, was.Top),
		addRef(t, on.top.Parent, layerRef, on.top.ID), addRef(t, on.top.ID, HolderKind, d.ID))
}

// onPoint is a new top over the layers of a point, with the DEKs that its disk needs for it and does not have.
type onPoint struct {
	top  layerRecord
	deks []keystore.Record
}

// stackOn plans a disk's top over a point, all under the disk's key. Keys that can't be used refuse it.
func (s *Service) stackOn(ctx context.Context, d diskRecord, p pointRecord) (on onPoint, err error) {
	var layers []layerRecord
	var held []string
	err = s.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		if layers, err = s.layersOf(r, p); err == nil {
			held, err = keystore.HeldLayers(r, holder(d))
		}
		return err
	})
	if err != nil {
		return on, err
	}
	on.top = layerRecord{Version: recordVersion, ID: uuid.New(), Parent: layers[0].ID, Size: d.Size, SectorSize: d.SectorSize, Encrypted: d.Encrypted,
		Created: s.Clock.Now()}
	if !d.Encrypted {
		return on, nil
	}
	dek, err := s.Keys.GenerateDEKUnder(ctx, d.Project, d.Key, holder(d), on.top.ID.String(), d.SectorSize)
	if err != nil {
		return on, err
	}
	lacking := slices.DeleteFunc(layers, func(l layerRecord) bool { return slices.Contains(held, l.ID.String()) })
	shared, err := s.shareAll(ctx, d.Project, d.Key, p.holder(), holder(d), lacking)
	on.deks = append(shared, dek)
	return on, err
}
