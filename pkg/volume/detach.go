package volume

import (
	"context"
	"errors"
	"fmt"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// DetachSpec says how to detach.
type DetachSpec struct {
	Project, Disk string
	// Drain is called first and returns when nobody touches the device any more.
	Drain func(*Attachment) error
	// Wiping is called when only the keys are left. It may be nil.
	Wiping Wiping
}

// Detach ends an attachment: once it is drained, what was answered is made durable, the layers are closed and the keys wiped. The
// keys are wiped whatever else fails.
func (s *Service) Detach(ctx context.Context, request string, spec DetachSpec) (warnings []string, err error) {
	d, err := s.lookUp(ctx, spec.Project, spec.Disk)
	if err != nil {
		return nil, err
	}
	if err := s.claim(d, Detaching); err != nil {
		return nil, err
	}
	defer s.release(d)
	a := s.attachment(d.ID)
	if a == nil {
		return nil, s.notAttached(ctx, d)
	}
	if err := spec.Drain(a); err != nil {
		return nil, fmt.Errorf("disk %s: %w", d.Name, err)
	}
	lost := a.Device.Sync()
	if isFull(lost) && a.Device.Failed() == nil {
		return nil, refusal.New(refusal.Failed, "make room in the pool's file system, then detach again; nothing is lost until then",
			"the last writes of disk %s can't be made durable: %w", d.Name, lost)
	}
	closed := a.end(spec.Wiping)
	s.mu.Lock()
	delete(s.attached, d.ID)
	s.mu.Unlock()
	if lost != nil || closed != nil {
		warnings = append(warnings, fmt.Sprintf("what was written after the last good flush may be lost: %v", errors.Join(lost, closed)))
	}
	if err := s.closeRecord(ctx, request, a, lost); err != nil {
		// It is detached all the same: what was written is durable, and the keys are gone.
		s.Log.Error("the detach could not be kept in the catalog", "disk", d.Name, "err", err)
		warnings = append(warnings, fmt.Sprintf("the disk is detached, and the catalog could not note it: the next attach will say that it "+
			"ended without a detach (%v)", err))
	}
	return warnings, nil
}

// notAttached refuses to detach what is not attached, and tells of an attachment that a run before this one left.
func (s *Service) notAttached(ctx context.Context, d diskRecord) error {
	left, err := s.leftBehind(ctx, d)
	if err != nil {
		return explain(d.Name, err)
	}
	hint := "run `nbdcrypt attach " + d.Name + "` to attach it"
	if left != nil {
		hint += "; " + left.warning()
	}
	return refusal.New(refusal.Busy, hint, "disk %s is not attached", d.Name)
}

// Elsewhere names the other host that a disk is attached on, as far as the catalog knows; it is empty where there is none.
func (s *Service) Elsewhere(ctx context.Context, project, ref string) (host string, err error) {
	d, err := s.lookUp(ctx, project, ref)
	if err != nil {
		return "", err
	}
	left, err := s.leftBehind(ctx, d)
	if err != nil || left == nil || left.Host == s.Host {
		return "", explain(d.Name, err)
	}
	return left.Host, nil
}

// Seize takes an attachment over from another host: one that was renamed, or is gone. Nothing keeps a host that is not
// gone from writing on, so a person must have said that it is. The next attach warns of what may be lost.
func (s *Service) Seize(ctx context.Context, request, project, ref string) error {
	d, err := s.lookUp(ctx, project, ref)
	if err != nil {
		return err
	}
	if err := s.claim(d, Detaching); err != nil {
		return err
	}
	defer s.release(d)
	return explain(d.Name, s.update(ctx, request, func(t catalog.Txn) error {
		left, err := get(t, attachmentKey(d.ID), parseAttachment)
		if errors.Is(err, catalog.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		left.Host = s.Host
		return put(t, attachmentKey(d.ID), left)
	}))
}

// closeRecord takes the attachment out of the catalog, or keeps it there to say what may be lost.
func (s *Service) closeRecord(ctx context.Context, request string, a *Attachment, lost error) error {
	return s.update(ctx, request, func(t catalog.Txn) error {
		now, err := get(t, attachmentKey(a.Disk), parseAttachment)
		if errors.Is(err, catalog.ErrNotFound) || err == nil && now.Epoch != a.record.Epoch {
			return nil
		}
		if err != nil {
			return err
		}
		if lost != nil {
			now.Lost = lost.Error()
		}
		if now.Lost != "" || now.Unclean {
			return put(t, attachmentKey(a.Disk), now)
		}
		return t.Delete(attachmentKey(a.Disk))
	})
}

// StrandedKey tells whether a detach would strand an attached disk: its key can't be used to attach it again. It
// returns the key, or nil.
func (s *Service) StrandedKey(ctx context.Context, project, ref string) (*keystore.Info, error) {
	d, err := s.lookUp(ctx, project, ref)
	if err != nil || !d.Encrypted || s.attachment(d.ID) == nil {
		return nil, err
	}
	if key := s.keyOf(ctx, d); key.State != keystore.Enabled {
		return key, nil
	}
	return nil, nil
}
