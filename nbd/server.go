package nbd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// handshakeTime is what a handshake may take (spec item 8).
	handshakeTime = 10 * time.Second
	// maxConnections of a server, and of one user who is not root: nobody takes them all.
	maxConnections     = 1024
	maxUserConnections = 512
	// maxStrangers is how many connections may be there of whom nobody knows yet.
	maxStrangers = 128
	// acceptPause is how long a listener waits when the system has no descriptors left.
	acceptPause = 50 * time.Millisecond
)

// Server serves exports on any number of listeners.
type Server struct {
	exports       Exports
	log           *slog.Logger
	handshakeTime time.Duration
	finishTime    time.Duration
	limit         int
	userLimit     int
	strangerLimit int
	userPayload   int64
	quiet         atomic.Bool
	complaints    pace
	busy          atomic.Int32 // connections whose loops do not wait for their clients

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	users     map[user]int
	purses    map[user]*purse
	strangers []*conn // the longest first
	closed    bool
	ended     chan struct{}
}

// NewServer makes a server of what exports holds.
func NewServer(exports Exports, log *slog.Logger) *Server {
	return &Server{
		exports:       exports,
		log:           log,
		handshakeTime: handshakeTime,
		finishTime:    finishTime,
		limit:         maxConnections,
		userLimit:     maxUserConnections,
		strangerLimit: maxStrangers,
		userPayload:   maxUserPayload,
		listeners:     make(map[net.Listener]struct{}),
		conns:         make(map[*conn]struct{}),
		users:         make(map[user]int),
		purses:        make(map[user]*purse),
		ended:         make(chan struct{}),
	}
}

// Serve accepts on l until ctx ends or Shutdown, then returns nil; it closes l. Connections outlive ctx: Shutdown
// ends them.
func (s *Server) Serve(ctx context.Context, l net.Listener, e Entrance) error {
	if e.Peer == nil {
		e.Peer = PeerOf
	}
	if !s.listen(l) {
		l.Close()
		return nil
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer s.unlisten(l)
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			s.welcome(context.WithoutCancel(ctx), nc, e)
		case ctx.Err() != nil || s.isClosed():
			return nil
		case !isPassing(err):
			return fmt.Errorf("nbd: accepting: %w", err)
		default:
			s.complain(s.log, "accepting", "err", err)
			pause(ctx)
		}
	}
}

// isPassing tells an error of accept that is gone when some connection has ended, or that is about one connection alone: accept(2)
// lists those of a network.
func isPassing(err error) bool {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED,
		syscall.EINTR, syscall.EPROTO, syscall.EPERM, syscall.EACCES, syscall.ECONNRESET, syscall.ETIMEDOUT, syscall.ENETDOWN, syscall.ENETUNREACH,
		syscall.ENONET, syscall.EHOSTDOWN, syscall.EHOSTUNREACH, syscall.ENOPROTOOPT, syscall.EOPNOTSUPP} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(acceptPause):
	}
}

// welcome starts a connection, or closes it where there are too many or nobody knows whose it is.
func (s *Server) welcome(ctx context.Context, nc net.Conn, e Entrance) {
	peer, err := e.Peer(nc)
	if err != nil {
		s.complain(s.log, "connection refused", "err", err)
		nc.Close()
		return
	}
	c := newConn(s, nc, peer, e)
	if err := s.admit(c); err != nil {
		c.complain("connection refused", err)
		nc.Close()
		return
	}
	go func() {
		defer s.dismiss(c)
		c.serve(ctx)
	}()
}
