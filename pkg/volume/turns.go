package volume

import (
	"context"

	"github.com/google/uuid"
)

// A disk is worked on by one at a time. Who claims it (claim.go) comes first: a fill that runs gives way to him, soon, and who counts what is in
// the disk's layers is waited for. turns is told of each change.

// takeTurn waits until nothing else is done to a disk. From then on who claims it waits in turn, until endTurn.
func (s *Service) takeTurn(ctx context.Context, disk uuid.UUID) error {
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.turns.Broadcast()
	})
	defer stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for (s.busy[disk] != 0 || s.looks[disk] != 0) && ctx.Err() == nil {
		s.turns.Wait()
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.filling[disk] = true
	return nil
}

func (s *Service) endTurn(disk uuid.UUID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.filling, disk)
	s.turns.Broadcast()
}

// halt waits until the fill of a disk, where one runs, has given way, and nobody looks at the disk. The caller holds mu, and has marked the
// disk as busy.
func (s *Service) halt(disk uuid.UUID) {
	for s.filling[disk] || s.looks[disk] != 0 {
		s.turns.Wait()
	}
}

// isWanted tells whether somebody else works on a disk, or waits to.
func (s *Service) isWanted(disk uuid.UUID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.busy[disk] != 0
}

// look keeps a disk's layers from being opened or closed until done is called, and lends what is open of it already, nil where nothing is.
// While the disk is worked on there is nothing to look at: not ok.
func (s *Service) look(disk uuid.UUID) (st *Stack, done func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.filling[disk] && s.alone[disk] == nil && s.attached[disk] == nil {
		s.turns.Wait() // for the fill to open or to end
	}
	if s.busy[disk] != 0 {
		return nil, nil, false
	}
	s.looks[disk]++
	if st = s.alone[disk]; s.attached[disk] != nil {
		st = s.attached[disk].Stack
	}
	return st, func() { s.looked(disk) }, true
}

func (s *Service) looked(disk uuid.UUID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.looks[disk]--; s.looks[disk] == 0 {
		delete(s.looks, disk)
	}
	s.turns.Broadcast()
}

// lend lets others look at what a fill has opened of a disk that is not attached; unlend comes before it is closed.
func (s *Service) lend(disk uuid.UUID, st *Stack) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.alone[disk] = st
	s.turns.Broadcast()
}

func (s *Service) unlend(disk uuid.UUID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.looks[disk] != 0 {
		s.turns.Wait()
	}
	delete(s.alone, disk)
}
