package nbd

import (
	"context"
	"net"
	"time"
)

// SetHandshakeTime changes what a handshake may take.
func (s *Server) SetHandshakeTime(d time.Duration) { s.handshakeTime = d }

// SetFinishTime changes how long a reply may take to leave at the end.
func (s *Server) SetFinishTime(d time.Duration) { s.finishTime = d }

// SetLimits changes how many connections there may be.
func (s *Server) SetLimits(all, user int) { s.limit, s.userLimit = all, user }

// SetStrangers changes how many may be there of whom nobody knows yet.
func (s *Server) SetStrangers(n int) { s.strangerLimit = n }

// SetUserPayload changes what all connections of a user may have in memory.
func (s *Server) SetUserPayload(n int64) { s.userPayload = n }

// SetLinger changes how long the connections of a drained export live on.
func (e *Export) SetLinger(d time.Duration) { e.linger = d }

// Kept is how many bytes the export keeps for the next requests.
func (e *Export) Kept() int {
	e.memory.mu.Lock()
	defer e.memory.mu.Unlock()
	return e.memory.kept
}

// Lent is how many bytes of its memory are in use.
func (e *Export) Lent() int {
	e.memory.mu.Lock()
	defer e.memory.mu.Unlock()
	return e.memory.lent
}

// WritesAreSlow has workers do all writes from now on.
func (e *Export) WritesAreSlow() { e.pacing.slowUntil.Store(1<<63 - 1) }

// Converse runs one connection of a peer without asking the kernel who it is.
func (s *Server) Converse(nc net.Conn, peer Peer, e Entrance) {
	c := newConn(s, nc, peer, e)
	s.mu.Lock()
	c.user = s.purseOf(peer.user())
	s.mu.Unlock()
	c.serve(context.Background())
}

const (
	MaxOptions = maxOptions
	MaxWorkers = maxWorkers
)

// SyncsNow tells whether loops sync by themselves.
func (e *Export) SyncsNow() bool { return e.pacing.quick.Load() >= quickSyncs }

// SyncWasSlow is a sync that had to wait.
func (e *Export) SyncWasSlow() { e.pacing.judgeSync(2 * quickSync) }
