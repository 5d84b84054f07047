package volume

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// leftBehind is the attachment record of a run that is over, nil where there is none.
func (s *Service) leftBehind(ctx context.Context, d diskRecord) (*attachRecord, error) {
	var left attachRecord
	err := s.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		left, err = get(r, attachmentKey(d.ID), parseAttachment)
		return err
	})
	if errors.Is(err, catalog.ErrNotFound) {
		return nil, nil
	}
	return &left, err
}

// takeOver fences the run that left an attachment behind, or a fill, so that nothing of it can still be written, and recovers what that
// has kept. It answers what may be lost all the same.
func (s *Service) takeOver(ctx context.Context, d diskRecord) (*attachRecord, error) {
	left, err := s.leftBehind(ctx, d)
	if err != nil {
		return nil, err
	}
	if left != nil {
		if left.Host != s.Host {
			return nil, refusal.New(refusal.Busy, "detach it there; if that host is gone, or is this one under an older name, run `nbdcrypt detach "+d.Name+"` here",
				"disk %s is attached on host %s", d.Name, left.Host)
		}
		if err := s.fence(ctx, left); err != nil {
			return nil, err
		}
		if left, err = s.recover(ctx, d, left); err != nil {
			return nil, err
		}
	}
	if err := s.settleFill(ctx, d); err != nil {
		return nil, err
	}
	if left != nil && left.ReadOnly && !left.Unclean {
		return nil, nil // it wrote nothing
	}
	return left, nil
}

// fence has nothing of a run that is over take effect any more.
func (s *Service) fence(ctx context.Context, left *attachRecord) error {
	for _, id := range left.Identities {
		if err := s.Pool.Fence(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// lossy tells whether there is an attachment that answered writes may be lost of, or of the one before it, and nobody was told.
func (a *attachRecord) lossy() bool { return a != nil && (!a.Recovered || a.Unclean) }

func (a *attachRecord) warning() string {
	if a.Lost != "" {
		return fmt.Sprintf("a sync failed during the attachment since %s (%s): what was written after the last good flush may be lost",
			a.Since.Format(time.RFC3339), a.Lost)
	}
	return fmt.Sprintf("the attachment since %s ended without a detach: what was not flushed may be lost; run a file system check before use",
		a.Since.Format(time.RFC3339))
}

// noteTold has an attachment not be told of for the sake of the one before it: whoever made it is told now.
func (s *Service) noteTold(a *Attachment) {
	err := s.update(context.Background(), "told-"+uuid.NewString(), func(t catalog.Txn) error {
		now, err := get(t, attachmentKey(a.Disk), parseAttachment)
		if err != nil || now.Epoch != a.record.Epoch {
			return ifThere(err)
		}
		now.Unclean = false
		return put(t, attachmentKey(a.Disk), now)
	})
	if err != nil {
		s.Log.Warn("the next attach may tell once more what this one told", "disk", a.Name, "err", err)
	}
	if s.Told != nil {
		s.Told(a)
	}
}

// noteFailure keeps in the catalog that a sync failed, so that the next attach can say so even after a crash.
func (s *Service) noteFailure(a *Attachment, cause error) {
	s.Log.Error("a sync failed; nothing more is written until detach", "disk", a.Name, "err", cause)
	s.notes.Go(func() {
		err := s.update(context.Background(), "failure-"+uuid.NewString(), func(t catalog.Txn) error {
			return a.keepFailure(t, cause)
		})
		if err != nil {
			s.Log.Error("the failed sync could not be kept in the catalog", "disk", a.Name, "err", err)
		}
		if s.Failed != nil {
			s.Failed(a, cause)
		}
	})
}

// keepFailure notes a failed sync in the record, if the record is still this attachment's.
func (a *Attachment) keepFailure(t catalog.Txn, cause error) error {
	now, err := get(t, attachmentKey(a.Disk), parseAttachment)
	if err != nil || now.Epoch != a.record.Epoch {
		return err
	}
	now.Lost = cause.Error()
	return put(t, attachmentKey(a.Disk), now)
}

// LeftAttached names the disks that a run on this host, which is over, had attached for writing and did not detach: those that answered writes
// may be lost of, and those that are recovered. What can't be read is passed by: attach and check tell of it.
func (s *Service) LeftAttached(ctx context.Context) (lossy, recovered []string, err error) {
	err = s.Catalog.View(ctx, func(r catalog.Reader) error {
		return catalog.Walk(r, "attachment/", func(p catalog.Pair, err error) error {
			var a attachRecord
			if err == nil {
				a, err = parseAttachment(p.Key, p.Value)
			}
			if err != nil {
				s.unreadable = append(s.unreadable, err)
				return nil
			}
			if a.ReadOnly && !a.Unclean || a.Instance == s.Instance || a.Host != s.Host {
				return nil
			}
			d, err := get(r, diskKey(a.Disk), parseDisk)
			name := d.Name
			if errors.Is(err, catalog.ErrNotFound) || isDamage(err) {
				name, err = a.Disk.String(), nil
			}
			if !a.lossy() {
				recovered = append(recovered, name)
			} else {
				lossy = append(lossy, name)
			}
			return err
		})
	})
	return lossy, recovered, err
}
