package volume

import (
	"context"

	"github.com/google/uuid"

	"nbdcrypt/pkg/refusal"
)

// claim marks a disk as being worked on; while it is, every other work on it is refused.
func (s *Service) claim(d diskRecord, v verb) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if doing, ok := s.busy[d.ID]; ok {
		return v.meanwhile(d, doing)
	}
	if err := v.against(d, s.resting(d)); err != nil {
		return err
	}
	s.busy[d.ID] = v
	s.halt(d.ID)
	return nil
}

// claimNow looks a disk up and claims it. What it answers is the record as it is under the claim, which the caller releases.
func (s *Service) claimNow(ctx context.Context, project, ref string, v verb) (diskRecord, error) {
	d, err := s.lookUp(ctx, project, ref)
	if err != nil {
		return d, err
	}
	if err := s.claim(d, v); err != nil {
		return d, err
	}
	// What was read before the claim may be old by now.
	now, err := s.lookUp(ctx, project, d.ID.String())
	if err == nil {
		err = s.mayRest(now, v)
	}
	if err != nil {
		s.release(d)
	}
	return now, err
}

// mayRest asks the table about a disk as it was before whatever is being done to it.
func (s *Service) mayRest(d diskRecord, v verb) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return v.against(d, s.resting(d))
}

func (s *Service) release(d diskRecord) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, d.ID)
	s.turns.Broadcast()
}

// ended keeps how work ended that leaves a disk as it was: the disk says so until the same succeeds, or until the daemon ends.
func (s *Service) ended(d diskRecord, v verb, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	doing := verbs[v].doing
	if err == nil && s.failedAt[d.ID] == doing {
		delete(s.failedAt, d.ID)
	}
	if code := refusal.CodeOf(err); code == refusal.Failed || code == refusal.Damaged {
		s.failedAt[d.ID] = doing
	}
}

// resting is what a disk is apart from what is being done to it. The caller holds the lock.
func (s *Service) resting(d diskRecord) Status {
	if s.attached[d.ID] != nil {
		return InUse
	}
	status := d.Status
	if failed, ok := s.failedAt[d.ID]; ok && status == Available {
		status = failed
	}
	if error, ok := halfWay[status]; ok {
		return error
	}
	return status
}

// status is what a disk is doing now; the catalog knows only what outlives a crash.
func (s *Service) status(d diskRecord) Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	doing := verbs[s.busy[d.ID]].doing
	if doing == "" || doing == Checking && s.attached[d.ID] != nil {
		return s.resting(d)
	}
	return doing
}

// attachment is this run's attachment of a disk, nil where there is none.
func (s *Service) attachment(id uuid.UUID) *Attachment {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.attached[id]
}
