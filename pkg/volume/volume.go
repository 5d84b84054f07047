// Package volume is disks: what they are called, which layers they stand on, who has them attached, and how they
// come and go without a crash leaving half of one. It is where the catalog, the key store and the pool meet; the bytes
// themselves are the business of packages layer and cryptdev below it.
package volume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"syscall"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/clock"
	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/refusal"
)

// Config is what disks are made of.
type Config struct {
	Catalog catalog.Store // sealed
	Keys    *keystore.Store
	Pool    pool.Pool
	Clock   clock.Clock
	Log     *slog.Logger
	// Host and Instance say in attachment records who holds a disk: this machine, and this run of the daemon.
	Host, Instance string
}

// Service holds the disks of one state directory. Its methods may be called from many goroutines.
type Service struct {
	Config

	mu       sync.Mutex
	busy     map[uuid.UUID]Status      // what is being done to a disk right now
	attached map[uuid.UUID]*Attachment // by this run
	notes    sync.WaitGroup            // failures on their way into the catalog
}

// Close waits for what is still on its way into the catalog. The catalog and the keys may be closed after it.
func (s *Service) Close() { s.notes.Wait() }

// Open takes over the disks and finishes what a crash has left: disks half made or half deleted go.
func Open(ctx context.Context, c Config) (*Service, error) {
	s := &Service{Config: c, busy: map[uuid.UUID]Status{}, attached: map[uuid.UUID]*Attachment{}}
	var unfinished []diskRecord
	err := s.eachDisk(ctx, func(d diskRecord) error {
		if d.Status == Creating || d.Status == Deleting {
			unfinished = append(unfinished, d)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, d := range unfinished {
		s.Log.Warn("finishing what was cut off", "disk", d.Name, "status", d.Status)
		if err := s.remove(ctx, d); err != nil {
			return nil, fmt.Errorf("volume: clean up disk %s: %w", d.Name, err)
		}
	}
	return s, nil
}

// claim marks a disk as being worked on; while it is, every other work on it is refused.
func (s *Service) claim(d diskRecord, doing Status) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now, ok := s.busy[d.ID]; ok {
		return refusal.New(refusal.Busy, "wait until that is done, then try again", "disk %s is %s", d.Name, now)
	}
	s.busy[d.ID] = doing
	return nil
}

func (s *Service) release(d diskRecord) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, d.ID)
}

// attachment is this run's attachment of a disk, nil where there is none.
func (s *Service) attachment(id uuid.UUID) *Attachment {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.attached[id]
}

// Attachments lists this run's attachments, the oldest first.
func (s *Service) Attachments() []*Attachment {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*Attachment, 0, len(s.attached))
	for _, a := range s.attached {
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b *Attachment) int { return a.Since.Compare(b.Since) })
	return list
}

// status is what a disk is doing now; the catalog knows only what outlives a crash.
func (s *Service) status(d diskRecord) Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now, ok := s.busy[d.ID]; ok && (now != Checking || s.attached[d.ID] == nil) {
		return now
	}
	if s.attached[d.ID] != nil {
		return InUse
	}
	return d.Status
}

// explain turns what a layer or the pool says of damage and missing room, on disk or for descriptors, into a refusal.
func explain(disk string, err error) error {
	var r *refusal.Error
	switch {
	case err == nil, errors.As(err, &r):
		return err
	case isDamage(err):
		return refusal.New(refusal.Damaged, "run `nbdcrypt check "+disk+"`; then restore what is lost from a backup",
			"disk %s is damaged: %w", disk, err)
	case isFull(err):
		return refusal.New(refusal.Failed, "make room in the pool's file system, then try again",
			"no space left for disk %s: %w", disk, err)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return refusal.New(refusal.Failed, "detach a disk, or raise the limit of open files (LimitNOFILE= of systemd, ulimit -Hn)",
			"no descriptors left for disk %s: %w", disk, err)
	case errors.Is(err, pool.ErrInUse):
		return refusal.New(refusal.Busy, "stop the other daemon that uses this pool", "disk %s: %w", disk, err)
	}
	return fmt.Errorf("disk %s: %w", disk, err)
}

// explainList is explain for what is about no disk in particular.
func explainList(err error) error {
	if errors.Is(err, catalog.ErrDamaged) {
		return refusal.New(refusal.Damaged, "restore the state directory from a backup", "the disks can't be listed: %w", err)
	}
	return err
}
