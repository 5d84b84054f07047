// Package volume is disks: what they are called, which layers they stand on, who has them attached, and how they
// come and go without a crash leaving half of one. It is where the catalog, the key store and the pool meet; the bytes
// themselves are the business of packages layer and cryptdev below it.
package volume

import (
	"bytes"
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
	"nbdcrypt/pkg/volume/layer"
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
	// Backups is the directory that backups lie in.
	Backups string
	// Journal is the directory that the journals of layers lie in, empty for none. A power cut may take it.
	Journal string
	// Unguarded is told once, where a disk has no journal. It may be nil.
	Unguarded func(why error)
	// Failed is told of a failed sync once the catalog has kept it. It may be nil.
	Failed func(a *Attachment, cause error)
	// Held tells what keeps a disk ("disk") or an image ("image") from being deleted, as a refusal. It is asked in the commit that begins its
	// deletion, and may be asked again. It may be nil.
	Held func(r catalog.Reader, kind string, id uuid.UUID) error
	// Told is told of an attachment whose maker learns that the one before it may have lost writes. It may be nil.
	Told func(a *Attachment)
}

// Service holds the disks of one state directory. Its methods may be called from many goroutines.
type Service struct {
	Config

	mu       sync.Mutex
	busy     map[uuid.UUID]verb        // what is being done to a disk right now
	failedAt map[uuid.UUID]Status      // what was done last and ended in an error that the disk shows
	attached map[uuid.UUID]*Attachment // by this run
	notes    sync.WaitGroup            // failures on their way into the catalog
	points   map[uuid.UUID]int         // who uses a point right now
	ciphers  *ciphers
	settling sync.Mutex // one layer at a time
	dooming  sync.Mutex // one layer at a time
	// tree is held shared from reading a stack until it is open or has a holder of its own, after the claim; alone by what puts other
	// layers into the place of some.
	tree    sync.RWMutex
	trees   *treeLocks
	turns   *sync.Cond           // of mu: a disk was claimed or released, or its fill gave way
	filling map[uuid.UUID]bool   // disks that a fill works on right now
	looks   map[uuid.UUID]int    // how many look at what a disk has in its layers
	alone   map[uuid.UUID]*Stack // what fills have opened of disks that are not attached

	journals    *layer.Journals // nil where there are none
	poolSettled func() error
	unguarded   sync.Once

	unreadable []error
	pending    []PendingFill
}

// Close waits for what is still on its way into the catalog. The catalog and the keys may be closed after it.
func (s *Service) Close() { s.notes.Wait() }

// Open takes over the disks and finishes what a crash has left: disks half made or half deleted go. Records that can't be read do
// not keep it from that: Unreadable tells them.
func Open(ctx context.Context, c Config) (*Service, error) {
	s := &Service{Config: c, busy: map[uuid.UUID]verb{}, failedAt: map[uuid.UUID]Status{}, attached: map[uuid.UUID]*Attachment{}, ciphers: newCiphers(), points: map[uuid.UUID]int{},
		trees: newTreeLocks(), filling: map[uuid.UUID]bool{}, looks: map[uuid.UUID]int{}, alone: map[uuid.UUID]*Stack{}}
	s.turns = sync.NewCond(&s.mu)
	s.poolSettled = sync.OnceValue(s.settlePool)
	s.openJournals()
	if err := errors.Join(s.recoverAll(ctx), s.finishAll(ctx)); err != nil {
		return nil, err
	}
	return s, nil
}

// unfinished are the disks that a crash has left half made or half deleted. Those that are not, which may be very many, are told by
// the text of their status alone: in a record a quotation mark within a text has a backslash before it.
func (s *Service) unfinished(ctx context.Context) (list []diskRecord, err error) {
	finished := []byte(`"status":"` + Available + `"`)
	err = s.Catalog.View(ctx, func(r catalog.Reader) error {
		return catalog.Walk(r, diskPrefix, func(p catalog.Pair, err error) error {
			if err == nil && bytes.Contains(p.Value, finished) {
				if bytes.Contains(p.Value, []byte(`"fill":`)) {
					s.noteFill(p)
				}
				return nil
			}
			var d diskRecord
			if err == nil {
				d, err = parseDisk(p.Key, p.Value)
			}
			if err != nil {
				s.unreadable = append(s.unreadable, err)
			} else if d.Status == Creating || d.Status == Deleting || d.Status == RestoringBackup || d.Status == Downloading {
				list = append(list, d)
			}
			return nil
		})
	})
	return list, err
}

// Unreadable is what Open met and could not read.
func (s *Service) Unreadable() []error { return s.unreadable }

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
