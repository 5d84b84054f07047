package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// maxShares is how many attachments a shared disk has at a time (rule B14).
const maxShares = 16

// Share is one of the attachments of a disk, as its users count them. All of a disk have one device, one key and one export.
type Share struct {
	ID       uuid.UUID `json:"id"`
	By       string    `json:"by"`
	Since    time.Time `json:"since"`
	ReadOnly bool      `json:"read_only"`
	// Device is the kernel's device that was connected to it, Mount the directory where it was mounted, as far as the attacher said so.
	Device string `json:"device,omitempty"`
	Mount  string `json:"mount,omitempty"`
}

// SharesOf are who has a disk attached, the oldest first.
func (s *Service) SharesOf(a *Attachment) []Share {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(a.shares)
}

// Depth is how many layers an attached disk stands on.
func (a *Attachment) Depth() int { return len(a.opened()) }

// Epoch counts the disk's attachments up to this one.
func (a *Attachment) Epoch() uint64 { return a.record.Epoch }

// join adds an attachment to a shared disk that has some. Its key is asked for as by the first: one that is not usable refuses it.
func (s *Service) join(ctx context.Context, request string, d diskRecord, a *Attachment, share Share, spec AttachSpec) error {
	before := s.SharesOf(a)
	if err := mayJoin(d, a, before, share); err != nil {
		return err
	}
	if err := spec.Continues.mayJoin(d, a); err != nil {
		return err
	}
	key, err := s.unwrapAgain(ctx, d)
	if err != nil {
		return err
	}
	if err := s.keepShares(ctx, request, a, append(before, share)); err != nil {
		return err
	}
	if err := spec.Released(d.ID.String(), key); err != nil {
		return errors.Join(err, s.keepShares(context.WithoutCancel(ctx), request+"/undo", a, before))
	}
	if spec.Attached != nil {
		spec.Attached(a, share)
	}
	return nil
}

func mayJoin(d diskRecord, a *Attachment, before []Share, share Share) error {
	switch {
	case len(before) >= maxShares:
		return refusal.New(refusal.Busy, fillIn(d, "end one of them with `nbdcrypt detach NAME --attachment ID`; `nbdcrypt disk show NAME` prints them"),
			"disk %s has %d attachments, and a shared disk can't have more", d.Name, len(before))
	case share.ReadOnly != a.ReadOnly:
		// They have one export, and its flags tell all clients the same.
		return refusal.New(refusal.Busy, "attach it as it is attached already, or detach it first",
			"disk %s is attached %s, and all its attachments have to be so", d.Name, map[bool]string{true: "read-only", false: "for writing"}[a.ReadOnly])
	case a.Device.Failed() != nil:
		return refusal.New(refusal.Failed, "detach the disk, and see to the storage below it", "a sync of disk %s failed, and nothing more is written to it", d.Name)
	}
	return nil
}

// unwrapAgain has the key store open a disk's key for one more attachment, which then uses what is open already.
func (s *Service) unwrapAgain(ctx context.Context, d diskRecord) (*keystore.KeyVersionRef, error) {
	if !d.Encrypted {
		return nil, nil
	}
	dek, key, err := s.Keys.UnwrapDEK(ctx, d.Project, holder(d), d.Top.String(), d.SectorSize)
	if err != nil {
		return nil, fmt.Errorf("%s can't be opened: %w", d.label(), err)
	}
	dek.Destroy()
	return &key, nil
}

// keepShares has catalog and attachment know who has the disk attached.
func (s *Service) keepShares(ctx context.Context, request string, a *Attachment, shares []Share) error {
	err := s.update(ctx, request, func(t catalog.Txn) error {
		now, err := get(t, attachmentKey(a.Disk), parseAttachment)
		if err != nil {
			return err
		}
		now.Shares = shares
		return put(t, attachmentKey(a.Disk), now)
	})
	if err != nil {
		return err
	}
	s.setShares(a, shares)
	return nil
}

func (s *Service) setShares(a *Attachment, shares []Share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.shares = shares
}

// ending is which attachment a detach ends, and which are left then.
func ending(d diskRecord, shares []Share, spec DetachSpec) (of Share, left []Share, err error) {
	i := len(shares) - 1
	switch {
	case spec.Attachment != "":
		i = slices.IndexFunc(shares, func(s Share) bool { return s.ID.String() == spec.Attachment })
		if i < 0 {
			return of, nil, refusal.New(refusal.NotFound, fillIn(d, "`nbdcrypt disk show NAME` prints its attachments"),
				"disk %s has no attachment %.100q", d.Name, spec.Attachment)
		}
	case d.Shared && spec.By != "":
		for i >= 0 && shares[i].By != spec.By {
			i--
		}
		if i < 0 {
			return of, nil, refusal.New(refusal.NotFound, fillIn(d, "`nbdcrypt detach NAME --attachment ID` ends somebody else's; `nbdcrypt disk show NAME` prints them"),
				"%s has not attached disk %s; others have", spec.By, d.Name)
		}
	}
	return shares[i], slices.Delete(slices.Clone(shares), i, i+1), nil
}

// leave ends one of several attachments: what was answered is made durable, and the key stays for the others.
func (s *Service) leave(ctx context.Context, request string, a *Attachment, of Share, left []Share, spec DetachSpec) (warnings []string, err error) {
	// From here on nobody comes in because of it, whatever else fails.
	s.setShares(a, left)
	spec.Leave(a, of)
	if err := a.Device.Sync(); err != nil {
		warnings = append(warnings, fmt.Sprintf("what was written last is not durable yet: %v", err))
	}
	if err := s.keepShares(ctx, request, a, left); err != nil {
		warnings = append(warnings, fmt.Sprintf("the attachment has ended, and the catalog could not note it: %v", err))
	}
	return warnings, nil
}
