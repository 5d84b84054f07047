package daemon

import (
	"net"
	"net/http"
	"sync"

	"nbdcrypt/nbd"
)

const (
	// maxCallers is how many connections the control API has at a time, and maxUserCallers how many of them one user
	// who is not root: each takes a descriptor, of which disks and the catalog need some too.
	maxCallers     = 512
	maxUserCallers = 128
)

// guests are the connections of the control API.
type guests struct {
	mu    sync.Mutex
	conns map[net.Conn]uint32
	users map[uint32]int
}

func newGuests() *guests { return &guests{conns: map[net.Conn]uint32{}, users: map[uint32]int{}} }

// admit tells whether there is room for one more connection of a user; root has always some, so that a person can look.
func (g *guests) admit(c net.Conn, peer nbd.Peer) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if peer.UID != 0 && (g.users[peer.UID] >= maxUserCallers || len(g.conns) >= maxCallers) {
		return false
	}
	g.conns[c] = peer.UID
	g.users[peer.UID]++
	return true
}

// follow is the http.Server's hook: a connection that has ended makes room.
func (g *guests) follow(c net.Conn, state http.ConnState) {
	if state != http.StateClosed && state != http.StateHijacked {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	uid, ok := g.conns[c]
	if !ok {
		return
	}
	delete(g.conns, c)
	if g.users[uid]--; g.users[uid] == 0 {
		delete(g.users, uid)
	}
}
