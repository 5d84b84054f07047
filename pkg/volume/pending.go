package volume

import (
	"context"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
)

// PendingFill is a disk whose fill is not done.
type PendingFill struct{ Project, ID, Name string }

// PendingFills are those that were found when the disks were opened: what a run before this one has left.
func (s *Service) PendingFills() []PendingFill { return s.pending }

// noteFill takes note of a disk whose fill a run before this one has left.
func (s *Service) noteFill(p catalog.Pair) {
	if d, err := parseDisk(p.Key, p.Value); err == nil && d.Fill != nil {
		s.pending = append(s.pending, PendingFill{d.Project, d.ID.String(), d.Name})
	}
}

// paused says of each kind of fill what is not done, and how it goes on.
var paused = map[string]string{
	fillFull:  "it still needs what it was made from: copying that goes on with its next attach, and the daemon's next start",
	fillRekey: "its data key is not replaced yet: that goes on with its next attach, the daemon's next start, and `nbdcrypt disk rekey NAME`",
	fillMerge: "the space of snapshots that were deleted is not given back yet: that goes on with its next attach, and the daemon's next start",
}

// Paused says what of a disk's long work is not done, and how it goes on; empty where nothing is.
func (s *Service) Paused(ctx context.Context, project, ref string) (why string, err error) {
	d, err := s.lookUp(ctx, project, ref)
	if err != nil || d.Fill == nil {
		return "", err
	}
	return fillIn(d, "disk NAME: "+paused[d.Fill.Why]), nil
}

// GoOn does what long work has left of a disk, and gives back the layers below its top that nobody needs, where that is worth it.
func (s *Service) GoOn(ctx context.Context, project, ref string, w Work) error {
	if err := s.RunFill(ctx, project, ref, w); err != nil {
		return err
	}
	d, err := s.lookUp(ctx, project, ref)
	if err != nil {
		return err
	}
	below, err := s.belowTop(ctx, d)
	if err != nil {
		return err
	}
	for _, id := range below {
		if err := s.Merge(ctx, id, false, w); err != nil {
			return err
		}
	}
	return nil
}

// Tidy goes on with merges that ended early, and gives back the layers that nobody needs, where that is worth it.
func (s *Service) Tidy(ctx context.Context, w Work) error {
	if err := s.releaseUnread(ctx); err != nil {
		return err
	}
	list, err := s.merges(ctx)
	if err != nil {
		return err
	}
	var layers []uuid.UUID
	for _, m := range list {
		layers = append(layers, m.Upper)
	}
	more, err := s.Remnants(ctx)
	if err != nil {
		return err
	}
	var first error
	for _, id := range append(layers, more...) {
		// One that can't be done, since a key is missing, keeps no other from it.
		if err := s.Merge(ctx, id, false, w); err != nil && first == nil {
			first = err
		}
		if ctx.Err() != nil {
			return first
		}
	}
	return first
}

// Owes tells whether GoOn would find anything to look at.
func (s *Service) Owes(ctx context.Context, project, ref string) (yes bool, err error) {
	d, err := s.lookUp(ctx, project, ref)
	if err != nil || d.Fill != nil {
		return err == nil, err
	}
	below, err := s.belowTop(ctx, d)
	if err != nil {
		return false, err
	}
	err = s.Catalog.View(ctx, func(r catalog.Reader) error {
		for _, id := range below {
			_, only, err := onlyChild(r, id)
			if err != nil {
				return err
			}
			yes = yes || only
		}
		return nil
	})
	return yes, err
}

// Untidy tells whether Tidy would find anything to look at.
func (s *Service) Untidy(ctx context.Context) (bool, error) {
	list, err := s.merges(ctx)
	if err != nil || len(list) > 0 {
		return err == nil, err
	}
	if layers, err := s.Remnants(ctx); err != nil || len(layers) > 0 {
		return err == nil, err
	}
	unread, err := s.unread(ctx)
	return len(unread) > 0, err
}
