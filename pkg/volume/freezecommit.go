package volume

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/refusal"
)

// intend says what is being made, before anything of it is there: a crash is cleaned up at the next start.
func (fz *freezing) intend(ctx context.Context) error {
	return fz.s.update(ctx, fz.request+"/intent", func(t catalog.Txn) error {
		if fz.point != nil {
			if err := reservePoint(t, *fz.point); err != nil {
				return err
			}
		}
		return errors.Join(put(t, layerKey(fz.top.ID), fz.top), t.Put(makingKey(fz.top.ID), makerOf(holder(fz.disk))))
	})
}

// share puts the DEKs into the catalog that the disk and the point need once they have their layers. A backup's anchor is read through its
// disk, and has none.
func (fz *freezing) share(ctx context.Context) error {
	if !fz.disk.Encrypted {
		return nil
	}
	list := []keystore.Record{fz.dek}
	if fz.point != nil && fz.point.Kind != BackupKind {
		shared, err := fz.s.shareAll(ctx, fz.disk.Project, fz.disk.Key, holder(fz.disk), fz.point.holder(), fz.stack)
		if err != nil {
			return err
		}
		list = append(list, shared...)
	}
	return fz.s.putDEKs(ctx, list)
}

// shareAll wraps the DEKs of layers for another holder.
func (s *Service) shareAll(ctx context.Context, project, key string, from, to keystore.Holder, layers []layerRecord) (list []keystore.Record, err error) {
	for _, l := range layers {
		rec, err := s.Keys.ShareDEK(ctx, project, key, from, to, l.ID.String())
		if err != nil {
			return nil, err
		}
		list = append(list, rec)
	}
	return list, nil
}

// commit makes the new layer the disk's top, if all is as it was when it was looked at.
func (fz *freezing) commit(t catalog.Txn, identities []pool.Identity) error {
	was := fz.disk
	d, err := get(t, diskKey(was.ID), parseDisk)
	if err != nil {
		return err
	}
	if d.Status != Available || d.Top != was.Top || d.Key != was.Key || d.Size != was.Size || d.Epoch != was.Epoch {
		return gone(was)
	}
	old, err := get(t, layerKey(was.Top), parseLayer) // a merge may have moved it onto another layer since it was looked at
	if err != nil {
		return err
	}
	d.Top, d.Fill = fz.top.ID, fz.fill
	old.Size, old.Frozen = d.Size, true
	err = errors.Join(put(t, diskKey(d.ID), d), put(t, layerKey(old.ID), old), t.Delete(makingKey(fz.top.ID)),
		addRef(t, old.ID, layerRef, fz.top.ID), t.Delete(refKey(old.ID, HolderKind, d.ID)), addRef(t, fz.top.ID, HolderKind, d.ID))
	if fz.point != nil {
		err = errors.Join(err, addRef(t, old.ID, fz.point.Kind, fz.point.ID))
	}
	if err != nil || identities == nil {
		return err
	}
	return keepIdentities(t, d, identities)
}

// available has the point be there, and the layers below the new top be durable. Those that were merged meanwhile are part of what is durable
// already.
func (fz *freezing) available(t catalog.Txn) error {
	for _, l := range fz.stack {
		if err := ifThere(markSealed(t, l.ID)); err != nil {
			return err
		}
	}
	if fz.point == nil || fz.point.Kind == BackupKind {
		return nil // a backup is available once its file is there
	}
	p, err := get(t, fz.point.key(), parsePoint)
	if err != nil {
		return err
	}
	p.Status = Available
	return put(t, p.key(), p)
}

// undo takes back what a freeze that failed has begun. Where the new top is in its place already it stays there, over a layer that the
// point alone would have needed.
func (fz *freezing) undo(ctx context.Context) error {
	err := fz.s.unmake(ctx, fz.top.ID)
	if fz.point != nil {
		_, dropped := fz.s.dropPoint(ctx, "undo-"+uuid.NewString(), *fz.point)
		err = errors.Join(err, dropped)
	}
	return err
}

// keepIdentities notes which openings of layers an attachment has.
func keepIdentities(t catalog.Txn, d diskRecord, identities []pool.Identity) error {
	now, err := get(t, attachmentKey(d.ID), parseAttachment)
	if err != nil {
		return err
	}
	if now.Epoch != d.Epoch {
		return gone(d)
	}
	now.Identities = identities
	return put(t, attachmentKey(d.ID), now)
}

// refuse says why a disk can't be frozen while it is being filled.
func (f fill) refuse(d diskRecord) error {
	how := map[string]string{fillRekey: "it is being re-keyed", fillFull: "what it was made from is being copied"}[f.Why]
	return refusal.New(refusal.Busy, "wait until that is done; it goes on while the disk is attached, or with `nbdcrypt disk rekey "+d.Name+"`",
		"disk %s can't be frozen now: %s", d.Name, how)
}
