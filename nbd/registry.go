package nbd

import (
	"errors"
	"net"
	"slices"
)

var (
	errFull   = errors.New("nbd: too many connections, of this user or of all")
	errClosed = errors.New("nbd: the server has ended")
	errPushed = errors.New("nbd: too many clients have not shown a certificate yet; this one has had longest to do it")
)

// user is whose a connection counts as: who is known by name has a count of their own.
type user struct {
	uid  uint32
	name string
}

// stranger is who is not known yet.
var stranger = user{uid: NoUID}

func (p Peer) user() user {
	if p.UID != NoUID {
		return user{uid: p.UID}
	}
	return user{NoUID, p.Name}
}

// admit counts c in, within the limits (spec item 8). A quarter of all is for root alone, so that a person can look.
func (s *Server) admit(c *conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := c.peer.user()
	switch {
	case s.closed:
		return errClosed
	case len(s.conns) >= s.limit, u.uid != 0 && len(s.conns) >= s.limit-s.limit/4, !s.hasRoom(u):
		return errFull
	}
	s.conns[c] = struct{}{}
	s.enter(c, u)
	return nil
}

// rename gives c another peer, which must have room for it.
func (s *Server) rename(c *conn, peer Peer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.hasRoom(peer.user()) {
		return errFull
	}
	s.leave(c)
	c.name(peer)
	s.enter(c, peer.user())
	return nil
}

// hasRoom, enter and leave count the connections of a user. The caller holds mu.
func (s *Server) hasRoom(u user) bool {
	return u.uid == 0 || u == stranger || s.users[u] < s.userLimit
}

func (s *Server) enter(c *conn, u user) {
	s.users[u]++
	c.user = s.purseOf(u)
	if u == stranger {
		s.strangers = append(s.strangers, c)
		s.pushOut()
	}
}

// pushOut ends the connection of the stranger who has been there longest, where there are too many: if the new one were turned away
// instead, a few who never say who they are would keep everybody else out.
func (s *Server) pushOut() {
	if len(s.strangers) <= s.strangerLimit {
		return
	}
	longest := s.strangers[0]
	s.strangers = s.strangers[1:]
	longest.pushed.Store(true)
	longest.cut()
}

func (s *Server) leave(c *conn) {
	u := c.peer.user()
	if s.users[u]--; s.users[u] == 0 {
		delete(s.users, u)
		delete(s.purses, u)
	}
	if i := slices.Index(s.strangers, c); i >= 0 {
		s.strangers = slices.Delete(s.strangers, i, i+1)
	}
}

// purseOf is what all connections of a user count their memory in; root's is not bounded. The caller holds mu.
func (s *Server) purseOf(u user) *purse {
	if u.uid != 0 && s.purses[u] == nil {
		s.purses[u] = &purse{limit: s.userPayload}
	}
	return s.purses[u]
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

// Busy counts the connections that made at least so many requests since it was asked last, and those of them that mostly had
// several in flight.
func (s *Server) Busy(least uint32) (busy, deep int) {
	s.each(func(c *conn) {
		requests, pauses := c.requests.Load(), c.pauses.Load()
		made, paused := requests-c.looked[0], pauses-c.looked[1]
		c.looked = [2]uint32{requests, pauses}
		if made < least {
			return
		}
		busy++
		if paused < made-made/8 {
			deep++
		}
	})
	return busy, deep
}

func (s *Server) each(act func(*conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		act(c)
	}
}
