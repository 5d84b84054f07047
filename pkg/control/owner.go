package control

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"

	"nbdcrypt/pkg/refusal"
)

// owner is the user whose daemon answers at a socket, once that is known.
type owner struct {
	mu    sync.Mutex
	known bool
	uid   uint32
}

// OfOneOwner returns a client that talks to the daemon of one user alone: of him who answers first. It is for a process of root's that goes on asking
// for long: the directory of the socket may have changed hands when the next daemon answers there.
func (c *Client) OfOneOwner() *Client {
	other, who := *c, new(owner)
	other.http = newHTTP(func(ctx context.Context) (net.Conn, error) {
		nc, err := dial(ctx, c.socket)
		if err != nil {
			return nil, err
		}
		if err := who.check(nc, c.socket); err != nil {
			nc.Close()
			return nil, err
		}
		return nc, nil
	})
	return &other
}

// check holds the other end of a connection against the first one's.
func (o *owner) check(nc net.Conn, socket string) error {
	raw, err := nc.(*net.UnixConn).SyscallConn()
	if err != nil {
		return err
	}
	var peer *syscall.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) {
		peer, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if failed != nil {
		return fmt.Errorf("control: whose daemon %s is: %w", socket, failed)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.known {
		o.known, o.uid = true, peer.Uid
	}
	if o.uid != peer.Uid {
		return refusal.New(refusal.Denied, "see who has taken the directory of the socket", "%s was the daemon's of user %d, and is user %d's now", socket, o.uid, peer.Uid)
	}
	return nil
}
