package nbd

import (
	"context"
	"fmt"
)

// Quiesce begins a shutdown: from now on handshakes get ERR_SHUTDOWN, and listeners still accept, so that clients
// hear it. The owner of the exports drains them next, and then calls Shutdown.
func (s *Server) Quiesce() { s.quiet.Store(true) }

// Shutdown closes the listeners and ends every connection in good order: requests that were read are answered, no
// others are. It returns nil once all are gone; when ctx ends before that it cuts them and returns an error, for then
// a device call may still be in progress.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Quiesce()
	s.stopListening()
	s.each((*conn).finish)
	select {
	case <-s.ended:
		return nil
	case <-ctx.Done():
		s.each((*conn).cut)
		return fmt.Errorf("nbd: shutdown: %w", ctx.Err())
	}
}

func (s *Server) stopListening() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for l := range s.listeners {
		l.Close()
	}
	s.endIfEmpty()
}
