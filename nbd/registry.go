package nbd

import (
	"errors"
	"net"
)

var errFull = errors.New("nbd: this user has too many connections")

// user is whose a connection counts as: who is known by name has a count of their own, and all who are not known yet share one.
type user struct {
	uid  uint32
	name string
}

func (p Peer) user() user {
	if p.UID != NoUID {
		return user{uid: p.UID}
	}
	return user{NoUID, p.Name}
}

// admit counts c in, within the limits (spec item 8).
func (s *Server) admit(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if len(s.conns) >= s.limit || !s.hasRoom(c.peer.user()) {
		s.tellFull(c.peer.user())
		return false
	}
	s.full = false
	s.conns[c] = struct{}{}
	s.enter(c)
	return true
}

// rename gives c another peer, which must have room for it.
func (s *Server) rename(c *conn, peer Peer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.hasRoom(peer.user()) {
		s.tellFull(peer.user())
		return errFull
	}
	s.leave(c)
	c.name(peer)
	s.enter(c)
	return nil
}

// hasRoom, enter and leave count the connections of a user. The caller holds mu.
func (s *Server) hasRoom(u user) bool { return u.uid == 0 || s.users[u] < s.userLimit }

func (s *Server) enter(c *conn) {
	u := c.peer.user()
	s.users[u]++
	c.user = s.purseOf(u)
}

func (s *Server) leave(c *conn) {
	u := c.peer.user()
	if s.users[u]--; s.users[u] == 0 {
		delete(s.users, u)
		delete(s.purses, u)
	}
}

// purseOf is what all connections of a user count their memory in; root's is not bounded. The caller holds mu.
func (s *Server) purseOf(u user) *purse {
	if u.uid != 0 && s.purses[u] == nil {
		s.purses[u] = &purse{limit: s.userPayload}
	}
	return s.purses[u]
}

// tellFull logs that there are too many connections, once until there is room again: whoever knocks chooses how often.
func (s *Server) tellFull(u user) {
	if !s.full {
		s.log.Warn("nbd: too many connections", "uid", u.uid, "name", u.name, "user", s.users[u], "all", len(s.conns))
	}
	s.full = true
}

// dismiss counts c out.
func (s *Server) dismiss(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.leave(c)
	s.endIfEmpty()
}

// endIfEmpty tells Shutdown that the last connection is gone. Once closed is set none is added.
func (s *Server) endIfEmpty() {
	if !s.closed || len(s.conns) > 0 {
		return
	}
	select {
	case <-s.ended:
	default:
		close(s.ended)
	}
}

func (s *Server) listen(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.listeners[l] = struct{}{}
	return true
}

func (s *Server) unlisten(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
	l.Close()
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *Server) each(act func(*conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		act(c)
	}
}
