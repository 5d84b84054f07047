package volume

import (
	"context"
	"sync"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/volume/layer"
)

// openJournals opens the directory of journals. Without it all works as well, and a killed daemon may cost what was not flushed.
func (s *Service) openJournals() {
	if s.Journal == "" {
		return
	}
	journals, err := layer.OpenJournals(s.Journal)
	if err != nil {
		s.noJournal(err)
		return
	}
	s.journals = journals
}

// noJournal tells that a disk has no journal. It is called with a layer's lock, and must not wait for anything.
func (s *Service) noJournal(why error) {
	s.notes.Go(func() {
		s.Log.Warn("there is no journal: where the daemon is killed, what was not flushed may be lost", "why", why)
		s.unguarded.Do(func() {
			if s.Unguarded != nil {
				s.Unguarded(why)
			}
		})
	})
}

// atOnce is how many disks are recovered at a time: each waits for storage.
const atOnce = 8

// recoverAll recovers, before anything else touches a layer, all disks that a run before this one had attached. One that can't be is tried
// again when it is attached. Journals that are nobody's go.
func (s *Service) recoverAll(ctx context.Context) error {
	list, whole, err := s.attachedBefore(ctx)
	if err != nil || s.journals == nil {
		return err
	}
	var all sync.WaitGroup
	turns := make(chan struct{}, atOnce)
	for _, left := range list {
		all.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			if err := s.recoverOne(ctx, left); err != nil {
				s.Log.Warn("a disk is not recovered yet", "disk", left.Disk, "why", err)
			}
		})
	}
	all.Wait()
	left, _, err := s.attachedBefore(ctx)
	if err != nil || !whole {
		return err // nobody knows whose they are
	}
	kept := map[uuid.UUID]bool{}
	for _, a := range left {
		kept[a.opening()] = true
	}
	if err := s.journals.Sweep(func(_, opening uuid.UUID) bool { return kept[opening] }); err != nil {
		s.Log.Warn("journals that are nobody's can't be removed", "err", err)
	}
	return nil
}

func (s *Service) recoverOne(ctx context.Context, left *attachRecord) error {
	var d diskRecord
	err := s.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		d, err = get(r, diskKey(left.Disk), parseDisk)
		return err
	})
	if err != nil || d.Status != Available {
		return err
	}
	if err := s.fence(ctx, left); err != nil {
		return err
	}
	_, err = s.recover(ctx, d, left)
	return err
}

// attachedBefore are the attachments on this host that are over without a detach, and not recovered. whole tells that all records could be read.
func (s *Service) attachedBefore(ctx context.Context) (list []*attachRecord, whole bool, err error) {
	whole = true
	err = s.Catalog.View(ctx, func(r catalog.Reader) error {
		return catalog.Walk(r, "attachment/", func(p catalog.Pair, err error) error {
			var a attachRecord
			if err == nil {
				a, err = parseAttachment(p.Key, p.Value)
			}
			if err != nil {
				whole = false
			} else if a.Host == s.Host && !a.ReadOnly && !a.Recovered {
				list = append(list, &a)
			}
			return nil
		})
	})
	return list, whole, err
}
