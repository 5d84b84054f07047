package nbd

import "net"

// admit counts c in, within the limits (spec item 8).
func (s *Server) admit(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	uid := c.peer.UID
	if s.closed {
		return false
	}
	if len(s.conns) >= s.limit || uid != 0 && s.users[uid] >= s.userLimit {
		s.tellFull(uid)
		return false
	}
	s.full = false
	s.conns[c] = struct{}{}
	s.users[uid]++
	c.user = s.purseOf(uid)
	return true
}

// purseOf is what all connections of a user count their memory in; root's is not bounded. The caller holds mu.
func (s *Server) purseOf(uid uint32) *purse {
	if uid != 0 && s.purses[uid] == nil {
		s.purses[uid] = &purse{limit: s.userPayload}
	}
	return s.purses[uid]
}

// tellFull logs that there are too many connections, once until there is room again: whoever knocks chooses how often.
func (s *Server) tellFull(uid uint32) {
	if !s.full {
		s.log.Warn("nbd: too many connections", "uid", uid, "user", s.users[uid], "all", len(s.conns))
	}
	s.full = true
}

// dismiss counts c out.
func (s *Server) dismiss(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	uid := c.peer.UID
	delete(s.conns, c)
	if s.users[uid]--; s.users[uid] == 0 {
		delete(s.users, uid)
		delete(s.purses, uid)
	}
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
