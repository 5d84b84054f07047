// Package server is virtual machines as records: which disks they have, and which scaling configuration and group they come from; how they are made, changed
// and deleted without a crash leaving half of one; and which of them run, as far as whoever has a lease of their disks says. It runs nothing itself.
package server

import (
	"context"
	"log/slog"
	"sync"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/clock"
	"nbdcrypt/pkg/volume"
)

// Config is what servers are made of.
type Config struct {
	Catalog catalog.Store // sealed
	Volumes *volume.Service
	Keys    *keystore.Store
	Clock   clock.Clock
	Log     *slog.Logger
}

// Service holds the servers of one state directory. Its methods may be called from many goroutines.
type Service struct {
	c Config

	mu    sync.Mutex
	busy  map[uuid.UUID]doing // what is done to a server, a configuration or a group right now
	freed chan struct{}       // closed when one of them is released, and then another one
	runs  map[uuid.UUID]*Run
	ended map[uuid.UUID]string // how the last run of a server ended

	unreadable []error
	finished   []string
}

// Open takes over the servers and finishes what a crash has left: what is half made or half deleted goes. Records that can't be read do not keep it from that:
// Unreadable tells them. The disks are open before.
func Open(ctx context.Context, c Config) (*Service, error) {
	s := &Service{c: c, busy: map[uuid.UUID]doing{}, freed: make(chan struct{}), runs: map[uuid.UUID]*Run{}, ended: map[uuid.UUID]string{}}
	if err := s.finishAll(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Unreadable is what Open met and could not read, or not finish.
func (s *Service) Unreadable() []error { return s.unreadable }

// Finished says what Open ended that a crash had cut off.
func (s *Service) Finished() []string { return s.finished }

func (s *Service) update(ctx context.Context, request string, fn func(catalog.Txn) error) error {
	return catalog.Commit(ctx, s.c.Catalog, request, fn)
}

// step names a commit on the way to what was asked for. A request that comes again after it failed begins with another id, so that none of its commits is taken for one
// of those that were undone.
func (h head) step(what string) string { return "make-" + h.ID.String() + "/" + what }

// newHead is what the record of something new begins with.
func (s *Service) newHead(project, name, request string) head {
	return head{Version: recordVersion, ID: uuid.New(), Name: name, Project: project, Status: Creating, Created: s.c.Clock.Now(), Request: request}
}
