package volume

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// DeleteSnapshot ends a snapshot, which takes neither a key nor room. What it alone needed goes at once; what others need of its layer is then
// copied upward, while they may be attached, and the layer goes. Where that can't be, or is interrupted, the snapshot is deleted all the
// same: the warnings say what stays, and why.
func (s *Service) DeleteSnapshot(ctx context.Context, request, project, ref string, w Work) (warnings []string, err error) {
	layer, name, err := s.endSnapshot(context.WithoutCancel(ctx), request, project, ref)
	if err != nil || layer == uuid.Nil {
		return nil, explainPoint(SnapshotKind, ref, err)
	}
	if err = s.releaseUnread(ctx); err == nil { // it may have been the last that could read what a backup was made of
		err = s.Merge(ctx, layer, true, w)
	}
	var r *refusal.Error
	if isFull(err) && !errors.As(err, &r) {
		err = refusal.New(refusal.Failed, "make room in the pool's file system", "%w", err)
	}
	if err != nil {
		why := refusal.From(err)
		return []string{fmt.Sprintf("snapshot %s is deleted, and its space is not given back yet: %s; %s", name, why.Message,
			"that is gone on with by the next deletion of a snapshot there, the disk's next attach, and the daemon's next start")}, nil
	}
	kept, err := s.holding(ctx, layer)
	if err != nil || len(kept) == 0 {
		return nil, err
	}
	return []string{fmt.Sprintf("snapshot %s is deleted, and its data is kept for %s", name, few(kept))}, nil
}

// endSnapshot drops the snapshot itself, and tells which layer it had.
func (s *Service) endSnapshot(ctx context.Context, request, project, ref string) (layer uuid.UUID, name string, err error) {
	find := func(ref string) (p pointRecord, err error) {
		err = s.Catalog.View(ctx, func(r catalog.Reader) (err error) {
			p, err = findPoint(r, SnapshotKind, project, ref)
			return err
		})
		return p, err
	}
	p, err := find(ref)
	if err != nil {
		return uuid.Nil, ref, err
	}
	free, err := s.takePoint(p)
	if err != nil {
		return uuid.Nil, p.Name, err
	}
	defer free()
	// What was read before may be old by now.
	if p, err = find(p.ID.String()); err != nil {
		return uuid.Nil, ref, err
	}
	layer, err = s.dropPoint(ctx, request, p)
	return layer, p.Name, err
}

// few names some of many.
func few(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
