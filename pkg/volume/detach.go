package volume

import (
	"context"
	"errors"
	"fmt"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// Detach ends an attachment: drain is called first and returns when nobody touches the device any more; then what was
// answered is made durable, the layers are closed and the keys wiped. The keys are wiped whatever else fails.
func (s *Service) Detach(ctx context.Context, request, project, ref string, drain func(*Attachment) error) (warnings []string, err error) {
	d, err := s.lookUp(ctx, project, ref)
	if err != nil {
		return nil, err
	}
	if err := s.claim(d, Detaching); err != nil {
		return nil, err
	}
	defer s.release(d)
	a := s.attachment(d.ID)
	if a == nil {
		return nil, s.forget(ctx, request, d)
	}
	if err := drain(a); err != nil {
		return nil, fmt.Errorf("disk %s: %w", d.Name, err)
	}
	lost := a.Device.Sync()
	closed := a.end()
	s.mu.Lock()
	delete(s.attached, d.ID)
	s.mu.Unlock()
	if lost != nil || closed != nil {
		warnings = append(warnings, fmt.Sprintf("what was written after the last good flush may be lost: %v", errors.Join(lost, closed)))
	}
	return warnings, s.closeRecord(ctx, request, a, lost)
}

// forget refuses to detach what is not attached, but lets a person put an attachment of a dead run to rest.
func (s *Service) forget(ctx context.Context, request string, d diskRecord) error {
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
