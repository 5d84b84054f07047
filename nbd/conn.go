package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// finishTime is how long a reply may take to leave once a connection is asked to end. Before that a client may
	// pause as long as it likes: it holds nobody but itself.
	finishTime = time.Second
	// maxComplaints bounds what one connection can write into the log.
	maxComplaints = 16
)

// conn is one client's connection through its whole life: handshake, transmission, end.
type conn struct {
	server *Server
	// socket is what was accepted; nc is it, or the TLS over it.
	socket, nc net.Conn
	peer       Peer
	user       *purse // what its user's connections hold, nil for no limit
	log        *slog.Logger
	in         *source

	entrance Entrance
	secure   bool // in TLS
	// noZeroes is what the client asked for in the greeting.
	noZeroes   bool
	terms      terms
	complaints atomic.Int32
	// requests that were read, and how often there was none to be read: as often, where a client waits for each answer.
	requests, pauses atomic.Uint32
	looked           [2]uint32   // what they were when Busy looked last; the server's mu guards it
	pushed           atomic.Bool // cut to make room

	mu        sync.Mutex // held while time limits are set
	finishing atomic.Bool
}

func newConn(s *Server, nc net.Conn, peer Peer, e Entrance) *conn {
	c := &conn{server: s, entrance: e, socket: nc, nc: nc, in: newSource(nc)}
	c.name(peer)
	return c
}

// name says who is at the other end.
func (c *conn) name(peer Peer) {
	c.peer = peer
	if peer.UID == NoUID {
		c.log = c.server.log.With("name", peer.Name, "address", c.socket.RemoteAddr().String())
		return
	}
	c.log = c.server.log.With("uid", peer.UID, "pid", peer.PID)
}

// setConn puts TLS over the socket. Who is ending the connection meanwhile has set its time limits, which are the socket's.
func (c *conn) setConn(nc net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nc = nc
}

// serve runs the connection to its end.
func (c *conn) serve(ctx context.Context) {
	defer c.hangUp()
	defer func() { c.in.wipe() }()
	err := c.converse(ctx)
	if c.pushed.Load() {
		err = errPushed
	}
	if err != nil && !isEnd(err) {
		c.complain("connection ended", err)
	}
}

// converse is the handshake and, where that opened an export, the transmission phase.
func (c *conn) converse(ctx context.Context) (err error) {
	defer rescue(&err)
	export, err := c.handshake(ctx)
	if export == nil || err != nil {
		return err
	}
	defer export.part(c)
	c.limit(time.Time{})
	c.log.Debug("export opened", "export", export.name)
	return newSession(c, export).run()
}

// limit sets how long the connection may wait for its client; a connection that is asked to end keeps its own.
func (c *conn) limit(until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.finishing.Load() {
		c.nc.SetDeadline(until)
	}
}

// finish ends the connection in good order: no request is read any more, those that were are answered.
func (c *conn) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finishing.Store(true)
	c.nc.SetReadDeadline(time.Unix(1, 0))
	c.nc.SetWriteDeadline(time.Now().Add(c.server.finishTime))
}

// beforeWrite gives each of the last replies its time: the device may have been slower than a client may be.
func (c *conn) beforeWrite() {
	if !c.finishing.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nc.SetWriteDeadline(time.Now().Add(c.server.finishTime))
}

// hangUp ends the connection; TLS says so first (spec item 24). Neither that nor lingering waits longer than finishTime for a
// client that has stopped to read.
func (c *conn) hangUp() {
	late := time.AfterFunc(c.server.finishTime, c.cut)
	defer late.Stop()
	if over, is := c.nc.(*tls.Conn); is {
		_ = over.CloseWrite()
	}
	linger(c.socket)
	c.nc.Close()
}

// linger reads away what a client of TCP still says, until it has heard everything: a socket that is closed with bytes unread drops
// what it has not sent yet.
func linger(socket net.Conn) {
	tcp, is := socket.(*net.TCPConn)
	if !is || tcp.CloseWrite() != nil {
		return
	}
	tcp.SetReadDeadline(time.Time{})
	_, _ = io.Copy(io.Discard, tcp)
}

// cut ends the connection at once.
func (c *conn) cut() { c.socket.Close() }

// complain logs, up to a point: a client chooses how often things go wrong.
func (c *conn) complain(what string, err error, args ...any) {
	if c.complaints.Add(1) > maxComplaints {
		return
	}
	c.server.complain(c.log, what, append(args, "err", err)...)
}

// isEnd tells an ordinary end of a connection: the client left, or we asked it to.
func isEnd(err error) bool {
	for _, end := range []error{io.EOF, net.ErrClosed, os.ErrClosed, os.ErrDeadlineExceeded, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}
