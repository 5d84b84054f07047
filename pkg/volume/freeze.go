package volume

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume/layer"
)

// freezing is the work of putting a new top over a disk's, which is a frozen layer from then on.
type freezing struct {
	s       *Service
	request string
	disk    diskRecord
	stack   []layerRecord // as it was
	point   *pointRecord  // what is made of the frozen stack, nil for nothing
	fill    *fill
	top     layerRecord // the new one
	dek     keystore.Record
}

// freeze puts a new top over that of a disk, and has p, which may be nil, hold what the disk held at that moment: exactly the writes
// answered by then (durability rule 7). f is the fill that the disk has from the same commit on. The caller has claimed the disk. While the
// disk is attached its I/O goes on, whatever fails.
func (s *Service) freeze(ctx context.Context, request string, d diskRecord, p *pointRecord, f *fill) error {
	fz := &freezing{s: s, request: request, disk: d, point: p, fill: f}
	a := s.attachment(d.ID)
	if err := fz.begin(ctx, a); err != nil {
		return err
	}
	err := fz.push(ctx, a)
	if err != nil && !errors.Is(err, catalog.ErrUnknownOutcome) {
		// What was begun is taken back, even where the caller has gone. Where nobody knows what the catalog holds a start finds out.
		err = errors.Join(err, fz.undo(context.WithoutCancel(ctx)))
	}
	return err
}

// begin refuses what can't be frozen, and does what takes long before anything else waits for it.
func (fz *freezing) begin(ctx context.Context, a *Attachment) error {
	d := fz.disk
	switch {
	case d.Fill != nil && d.Fill.keeps():
		return d.Fill.refuse(d)
	case a == nil:
		left, err := fz.s.takeOver(ctx, d)
		if err == nil && left != nil && fz.point != nil {
			fz.point.Lost = left.warning()
		}
		return err
	case a.ReadOnly:
		return refusal.New(refusal.Busy, "detach it first, or attach it for writing", "disk %s is attached read-only", d.Name)
	case a.Device.Failed() != nil:
		return refusal.New(refusal.Failed, "detach the disk, and see to the storage below it", "a sync of disk %s failed, and nothing more is written to it: %w", d.Name, a.Device.Failed())
	}
	// So that little is left to do once the old top is sealed.
	if err := a.Device.Sync(); err != nil {
		return fmt.Errorf("the last writes can't be made durable: %w", err)
	}
	return nil
}

// push makes the new top, and puts it over the old one in the catalog and then in the device.
func (fz *freezing) push(ctx context.Context, a *Attachment) error {
	if err := fz.swap(ctx, a); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx) // it is done: what follows only says so
	if a == nil {
		return nil
	}
	if err := a.Device.Seal(); err != nil {
		return fmt.Errorf("what is frozen can't be made durable: %w", err)
	}
	return fz.s.update(ctx, fz.request, fz.available)
}

// swap ends with the new top in its place. The layers below it stay what they are meanwhile.
func (fz *freezing) swap(ctx context.Context, a *Attachment) error {
	s := fz.s
	s.tree.RLock()
	defer s.tree.RUnlock()
	if err := fz.look(ctx, a); err != nil {
		return err
	}
	if err := fz.intend(ctx); err != nil {
		return err
	}
	if err := layer.Create(ctx, s.Pool, fz.top.header(), fz.top.Size); err != nil {
		return err
	}
	if err := fz.share(ctx); err != nil {
		return err
	}
	if a == nil {
		if err := s.settleAll(ctx, fz.stack); err != nil {
			return err
		}
		return s.update(ctx, fz.request, func(t catalog.Txn) error {
			if err := fz.commit(t, nil); err != nil {
				return err
			}
			return fz.available(t)
		})
	}
	open, err := a.openTop(ctx, fz.top)
	if err != nil {
		return err
	}
	err = s.update(context.WithoutCancel(ctx), fz.request+"/top", func(t catalog.Txn) error { return fz.commit(t, append(a.identities(), open.Identities()...)) })
	if err != nil {
		return errors.Join(err, a.Stack.end([]openLayer{open}, nil))
	}
	a.put(open)
	return nil
}

// look reads what is to be frozen, and draws the key of what comes over it: a CMK that can't be used refuses it here.
func (fz *freezing) look(ctx context.Context, a *Attachment) (err error) {
	d := fz.disk
	if fz.stack, err = fz.s.stack(ctx, d); err != nil {
		return err
	}
	if fz.point != nil && len(fz.stack) >= maxDepth {
		return refusal.New(refusal.Busy, "delete snapshots that are not needed, or run `nbdcrypt disk rekey "+d.Name+"`, which makes one layer of them",
			"disk %s stands on %d layers, and more than %d take too long to read through", d.Name, len(fz.stack), maxDepth)
	}
	if a != nil {
		if err := a.asCatalog(d); err != nil {
			return err
		}
	}
	fz.top = layerRecord{Version: recordVersion, ID: uuid.New(), Parent: fz.stack[0].ID, Size: d.Size, SectorSize: d.SectorSize,
		Encrypted: d.Encrypted, Created: fz.s.Clock.Now()}
	if d.Encrypted {
		fz.dek, err = fz.s.Keys.GenerateDEKUnder(ctx, d.Project, d.Key, holder(d), fz.top.ID.String(), d.SectorSize)
	}
	return err
}

// asCatalog refuses what builds on the disk's top where the catalog names another than the disk writes to. That is so after a commit of which
// nobody could tell how it ended.
func (a *Attachment) asCatalog(d diskRecord) error {
	if a.opened()[0].ID == d.Top {
		return nil
	}
	return refusal.New(refusal.Failed, "detach the disk and attach it again", "disk %s writes to another layer than the catalog says", d.Name)
}
