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
	// Attachment names one of those of a shared disk. Else the newest that By made ends, where that is not empty, else the newest.
	Attachment, By string
	// All ends all of them.
	All bool
	// Only is the attachment that is meant, where it is not nil: one that somebody else has made since is left alone, which is no error.
	Only *Attachment
	// Leave is called where others are left: nobody may have the device open any more because of that one.
	Leave func(*Attachment, Share)
	// Stranding is asked, where it is not nil, before the last ends of a disk whose key can't be used to attach it again. An
	// error keeps it attached.
	Stranding func(keystore.Info) error
	// Asking has nothing done where it is not nil: once all is found that could refuse the detach, it is told what would end, and how many
	// would be left.
	Asking func(a *Attachment, of Share, left int)
	// Drain is called first and returns when nobody touches the device any more.
	Drain func(*Attachment) error
	// Wiping is called when only the keys are left. It may be nil.
	Wiping Wiping
}

// Detach ends an attachment. Where it is the last of its disk: once it is drained, what was answered is made durable, the layers are closed and the keys wiped. The
// keys are wiped whatever else fails.
func (s *Service) Detach(ctx context.Context, request string, spec DetachSpec) (warnings []string, err error) {
	d, err := s.lookUp(ctx, spec.Project, spec.Disk)
	if err != nil {
		return nil, err
	}
	if err := s.claim(d, toDetach); err != nil {
		return nil, s.notAttached(ctx, d, err)
	}
	defer s.release(d)
	a := s.attachment(d.ID)
	if spec.Only != nil && spec.Only != a {
		return nil, nil
	}
	var of Share
	var left []Share
	if !spec.All {
		if of, left, err = ending(d, s.SharesOf(a), spec); err != nil {
			return nil, err
		}
	}
	if len(left) > 0 && spec.Asking == nil {
		return s.leave(ctx, request, a, of, left, spec)
	}
	if len(left) == 0 {
		if err := s.stranding(ctx, d, spec); err != nil {
			return nil, err
		}
	}
	if spec.Asking != nil {
		spec.Asking(a, of, len(left))
		return nil, nil
	}
	if err := spec.Drain(a); err != nil {
		return nil, fmt.Errorf("disk %s: %w", d.Name, err)
	}
	lost := a.Device.Sync()
	if isFull(lost) && a.Device.Failed() == nil {
		return nil, refusal.New(refusal.Failed, "make room in the pool's file system, then detach again; nothing is lost until then",
			"the last writes of disk %s can't be made durable: %w", d.Name, lost)
	}
	journaled := a.opened()
	closed := s.exit(a, spec)
	if lost != nil || closed != nil {
		warnings = append(warnings, fmt.Sprintf("what was written after the last good flush may be lost: %v", errors.Join(lost, closed)))
	}
	if err := s.closeRecord(ctx, request, a, lost); err != nil {
		// It is detached all the same: what was written is durable, and the keys are gone.
		s.Log.Error("the detach could not be kept in the catalog", "disk", d.Name, "err", err)
		warnings = append(warnings, fmt.Sprintf("the disk is detached, and the catalog could not note it: the next attach will say that it "+
			"ended without a detach (%v)", err))
	} else {
		s.forgetJournals(a.opening, journaled)
	}
	return warnings, nil
}

// exit closes an attachment. Nobody puts other layers into the place of its own meanwhile.
func (s *Service) exit(a *Attachment, spec DetachSpec) error {
	s.tree.RLock()
	defer s.tree.RUnlock()
	closed := a.end(spec.Wiping)
	s.mu.Lock()
	delete(s.attached, a.Disk)
	s.mu.Unlock()
	return closed
}

// notAttached adds to why a disk can't be detached what an attachment has left that a run before this one made.
func (s *Service) notAttached(ctx context.Context, d diskRecord, why error) error {
	left, err := s.leftBehind(ctx, d)
	if err != nil {
		return explain(d.Name, err)
	}
	if r := refusal.From(why); left.lossy() && s.attachment(d.ID) == nil {
		return refusal.New(r.Code, r.Hint+"; "+left.warning(), "%w", why)
	}
	return why
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
	if err := s.claim(d, toSeize); err != nil {
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
		if now.Lost != "" || now.Unclean && now.ReadOnly {
			return put(t, attachmentKey(a.Disk), now)
		}
		return t.Delete(attachmentKey(a.Disk))
	})
}

// stranding asks about a detach after which the disk can't be attached again: its key is not usable.
func (s *Service) stranding(ctx context.Context, d diskRecord, spec DetachSpec) error {
	if !d.Encrypted || spec.Stranding == nil {
		return nil
	}
	if key := s.keyOf(ctx, d); key.State != keystore.Enabled {
		return spec.Stranding(*key)
	}
	return nil
}
