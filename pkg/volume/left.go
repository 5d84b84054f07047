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

// takeOver fences the run that left an attachment behind, so that nothing of it can still be written.
func (s *Service) takeOver(ctx context.Context, d diskRecord) (*attachRecord, error) {
	left, err := s.leftBehind(ctx, d)
	if err != nil || left == nil {
		return nil, err
	}
	if left.Host != s.Host {
		return nil, refusal.New(refusal.Busy, "detach it there; if that host is gone, or is this one under an older name, run `nbdcrypt detach "+d.Name+"` here",
			"disk %s is attached on host %s", d.Name, left.Host)
	}
	for _, id := range left.Identities {
		if err := s.Pool.Fence(ctx, id); err != nil {
			return nil, err
		}
	}
	if left.ReadOnly && !left.Unclean {
		return nil, nil // it wrote nothing
	}
	return left, nil
}

func (a *attachRecord) warning() string {
	if a.Lost != "" {
		return fmt.Sprintf("a sync failed during the attachment since %s (%s): what was written after the last good flush may be lost",
			a.Since.Format(time.RFC3339), a.Lost)
	}
	return fmt.Sprintf("the attachment since %s ended without a detach: what was not flushed may be lost; run a file system check before use",
		a.Since.Format(time.RFC3339))
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

// LeftAttached names the disks that a run on this host, which is over, had attached for writing and did not detach.
func (s *Service) LeftAttached(ctx context.Context) (names []string, err error) {
	var left []attachRecord
	err = s.Catalog.View(ctx, func(r catalog.Reader) error {
		for after := ""; ; {
			pairs, err := r.Scan("attachment/", after, 256)
			if err != nil || len(pairs) == 0 {
				return err
			}
			for _, p := range pairs {
				a, err := parseAttachment(p.Key, p.Value)
				if err != nil {
					return err
				}
				left = append(left, a)
				after = p.Key
			}
		}
	})
	if err != nil {
		return nil, err
	}
	for _, a := range left {
		if a.ReadOnly && !a.Unclean || a.Instance == s.Instance || a.Host != s.Host {
			continue
		}
		var d diskRecord
		err := s.Catalog.View(ctx, func(r catalog.Reader) (err error) {
			d, err = get(r, diskKey(a.Disk), parseDisk)
			return err
		})
		if err != nil {
			return nil, err
		}
		names = append(names, d.Name)
	}
	return names, nil
}
