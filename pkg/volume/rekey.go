package volume

import (
	"context"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// Rekey gives a disk another data key, attached or not (rule C15): a new top, into which all of the disk is copied under the new key while I/O
// goes on, and then the old layers go with their keys. What snapshots and others stand on stays theirs under the old keys. One that ended
// early is gone on with by the same call. It tells who still holds an old key.
func (s *Service) Rekey(ctx context.Context, request, project, ref string, w Work) (kept []string, err error) {
	d, err := s.lookUp(ctx, project, ref)
	if err != nil {
		return nil, err
	}
	if !d.Encrypted {
		return nil, refusal.New(refusal.Failed, "an encrypted disk has to be made as one, and the data copied to it", "disk %s is plain and has no key", d.Name)
	}
	for pending := true; pending; {
		if pending, err = s.beginRekey(ctx, request, d, w); err != nil {
			return nil, explain(d.Name, err)
		}
	}
	var before []uuid.UUID
	if before, err = s.belowTop(ctx, d); err != nil {
		return nil, explain(d.Name, err)
	}
	if err := s.RunFill(ctx, project, d.ID.String(), w); err != nil {
		return nil, err
	}
	return s.holding(ctx, before...)
}

// beginRekey puts the new top over the disk's, unless a re-key has begun already. Another fill is done before: it tells that one was.
func (s *Service) beginRekey(ctx context.Context, request string, d diskRecord, w Work) (pending bool, err error) {
	d, err = s.claimNow(ctx, d.Project, d.ID.String(), toRekey)
	if err != nil {
		return false, err
	}
	if d.Fill != nil && d.Fill.keeps() {
		s.release(d)
		if d.Fill.Why == fillRekey {
			return false, nil
		}
		return true, s.RunFill(ctx, d.Project, d.ID.String(), w)
	}
	defer s.release(d)
	var st *Stack
	if a := s.attachment(d.ID); a != nil {
		st = a.Stack
	}
	held, err := s.usage(ctx, d, st)
	if err == nil {
		err = s.room(held.Written)
	}
	if err != nil {
		return false, err
	}
	return false, s.freeze(ctx, request, d, nil, &fill{Why: fillRekey})
}

// belowTop are the layers below a disk's top.
func (s *Service) belowTop(ctx context.Context, d diskRecord) ([]uuid.UUID, error) {
	now, err := s.lookUp(ctx, d.Project, d.ID.String())
	if err != nil {
		return nil, err
	}
	layers, err := s.stack(ctx, now)
	if err != nil {
		return nil, err
	}
	return layerIDs(layers[1:]), nil
}

// holding names those who stand on layers that are still there.
func (s *Service) holding(ctx context.Context, layers ...uuid.UUID) (names []string, err error) {
	seen := map[keystore.Holder]bool{}
	err = s.Catalog.View(ctx, func(r catalog.Reader) error {
		for _, id := range layers {
			h, err := standing(r, id)
			if err != nil {
				return err
			}
			for _, one := range h.named() {
				if !seen[one.Holder] {
					seen[one.Holder] = true
					names = append(names, one.Holder.Kind+" "+one.name)
				}
			}
		}
		return nil
	})
	return names, err
}

// named is a holder as a person knows it.
type named struct {
	keystore.Holder
	name string
}

func (h holders) named() (list []named) {
	for _, p := range h.points {
		list = append(list, named{p.holder(), p.Name})
	}
	for _, d := range h.disks {
		list = append(list, named{holder(d), d.Name})
	}
	return list
}
