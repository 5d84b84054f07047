package volume

import (
	"context"
	"errors"
)

// Undo ends an attachment as if nobody had come: it is closed, its keys are wiped, and the catalog says what it said before, so that who goes on
// from the attachment before it still can, and what that one may have lost is told to the next. Nobody may have written through it. It is for who attaches several disks, all or none.
//
// It waits for its turn; where it fails for another reason than ctx the disk is detached all the same, and the keys are gone.
func (s *Service) Undo(ctx context.Context, request string, a *Attachment, wiping Wiping) error {
	d, err := s.lookUp(ctx, a.Project, a.Disk.String())
	if err != nil {
		return err
	}
	if err := s.claimInTurn(ctx, d, toDetach); err != nil {
		if s.attachment(a.Disk) != a {
			return nil // somebody has ended it
		}
		return err
	}
	defer s.release(d)
	if s.attachment(a.Disk) != a {
		return nil // somebody has ended it, and another has attached the disk
	}
	ended := a.Device.Sync() // a fill may have copied up into it
	journaled := a.opened()
	ended = errors.Join(ended, s.exit(a, DetachSpec{Wiping: wiping}))
	if err := s.takeBack(context.WithoutCancel(ctx), request, a, a.left); err != nil {
		return explain(d.Name, errors.Join(ended, err))
	}
	s.forgetJournals(a.opening, journaled)
	return explain(d.Name, ended)
}

// claimInTurn is claim for who has to, and so waits until nobody else works on the disk.
func (s *Service) claimInTurn(ctx context.Context, d diskRecord, v verb) error {
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.turns.Broadcast()
	})
	defer stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.busy[d.ID] != 0 && ctx.Err() == nil {
		s.turns.Wait()
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := v.against(d, s.resting(d)); err != nil {
		return err
	}
	s.busy[d.ID] = v
	s.halt(d.ID)
	return nil
}
