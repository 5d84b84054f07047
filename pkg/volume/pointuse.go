package volume

import (
	"nbdcrypt/pkg/refusal"
)

// alone is what a point counts as users while one of them has it for itself.
const alone = -1

// usePoint keeps a point from being ended while something is made of it; many may.
func (s *Service) usePoint(p pointRecord) (free func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.points[p.ID] == alone {
		return nil, p.busy("it is being deleted")
	}
	s.points[p.ID]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.points[p.ID]--; s.points[p.ID] == 0 {
			delete(s.points, p.ID)
		}
	}, nil
}

// takePoint has a point for its caller alone.
func (s *Service) takePoint(p pointRecord) (free func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.points[p.ID] != 0 {
		return nil, p.busy("something else is done with it")
	}
	s.points[p.ID] = alone
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.points, p.ID)
	}, nil
}

func (p pointRecord) busy(why string) error {
	return refusal.New(refusal.Busy, "wait until that is done, then try again", "%s %s can't be used now: %s", p.Kind, p.Name, why)
}

// whole refuses a point that is half made or half gone.
func (p pointRecord) whole() error {
	if p.Status == Available {
		return nil
	}
	return refusal.New(refusal.Busy, "wait until that is done, then try again; if it ended half-way, delete it", "%s %s is %s", p.Kind, p.Name, p.Status)
}
