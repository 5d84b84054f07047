package server

import (
	"context"

	"github.com/google/uuid"

	"nbdcrypt/pkg/refusal"
)

// doing is what is done to a server, a configuration or a group right now, in the words of refusals.
type doing string

const (
	toCreate doing = "being created"
	toDelete doing = "being deleted"
	toChange doing = "getting or giving away a disk"
	toImage  doing = "being made a scaling configuration of"
	toScale  doing = "being scaled"
)

const wait = "wait until that is done, then try again"

// claim has one for the caller alone; everything else that would be done to it meanwhile is refused.
func (s *Service) claim(what string, id uuid.UUID, v doing) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.busy[id]; now != "" {
		return refusal.New(refusal.Busy, wait, "%s is %s", what, now)
	}
	s.busy[id] = v
	return nil
}

func (s *Service) release(id uuid.UUID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, id)
	close(s.freed)
	s.freed = make(chan struct{})
}

// claimSoon waits for its turn.
func (s *Service) claimSoon(ctx context.Context, what string, id uuid.UUID, v doing) error {
	for {
		s.mu.Lock()
		freed := s.freed
		s.mu.Unlock()
		if s.claim(what, id, v) == nil {
			return nil
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// claimNow looks one up and claims it. What it answers is the record as it is under the claim, which the caller releases.
func claimNow[T recorded](ctx context.Context, s *Service, k kind[T], project, ref string, v doing) (T, error) {
	was, err := k.lookUp(ctx, s.c.Catalog, project, ref)
	if err != nil {
		return was, err
	}
	h := was.common()
	if err := s.claim(k.word+" "+h.Name, h.ID, v); err != nil {
		return was, err
	}
	// What was read before the claim may be old by now.
	now, err := k.lookUp(ctx, s.c.Catalog, project, h.ID.String())
	if err != nil {
		s.release(h.ID)
	}
	return now, err
}

// claimServer is claimNow of a server that does not run.
func (s *Service) claimServer(ctx context.Context, project, ref string, v doing) (serverRecord, error) {
	r, err := claimNow(ctx, s, servers, project, ref, v)
	if err != nil {
		return r, err
	}
	if err := s.notRunning(r); err != nil {
		s.release(r.ID)
		return r, err
	}
	return r, nil
}

func (s *Service) notRunning(r serverRecord) error {
	if run := s.runOf(r.ID); run != nil {
		return refusal.New(refusal.Busy, "run `nbdcrypt server stop "+r.Name+"` first", "server %s is %s", r.Name, s.status(r))
	}
	return nil
}

func (s *Service) runOf(id uuid.UUID) *Run {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runs[id]
}

// status is what a server does now; the catalog knows only what outlives a crash.
func (s *Service) status(r serverRecord) Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	if run := s.runs[r.ID]; run != nil {
		return run.status
	}
	return s.restingStatus(r.head)
}

// statusOf is what a configuration or a group does now.
func (s *Service) statusOf(h head) Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.restingStatus(h)
}

// restingStatus is Error for what is half there and nobody works on. The caller holds the lock.
func (s *Service) restingStatus(h head) Status {
	switch v := s.busy[h.ID]; {
	case v == toCreate:
		return Creating
	case v == toDelete:
		return Deleting
	case h.Status == Creating, h.Status == Deleting:
		return Error
	}
	return h.Status
}
