package volume

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// Attachment is a disk that is readable on this host: open layers, and the ciphers of their DEKs.
type Attachment struct {
	*Stack
	Disk     uuid.UUID
	Name     string
	Project  string
	Since    time.Time
	ReadOnly bool
	// Warnings say what the attachment before this one may have lost. Unclean tells that there is such.
	Warnings []string
	Unclean  bool

	record attachRecord
	// left is what the attachment before this one has left to tell, nil for nothing.
	left *attachRecord
	// shares are who attached it, the oldest first; the service's mu guards them. A disk that is not shared has one.
	shares []Share
}

// Wiping is told of the keys of an attachment right before they are wiped. The bytes are lent for the time of the call; a plain
// disk has none, and there is no call.
type Wiping func(a *Attachment, keys []LayerKey)

// AttachSpec says how to attach.
type AttachSpec struct {
	Project, Disk string
	By            string
	ReadOnly      bool
	// Device and Mount are kept with the attachment.
	Device, Mount string
	// Continues is the attachment that this one goes on from; nil for none.
	Continues *Continues
	// Released is called when all else is done and before anything uses the key that was unwrapped; an error takes the
	// attach back. This is where the audit record is synced.
	Released func(disk string, key *keystore.KeyVersionRef) error
	// Attached is called last, while a detach still has to wait: what it opens to clients a detach finds and closes.
	Attached func(*Attachment, Share)
	// Wiping is for an attach that fails when keys are unwrapped already. It may be nil.
	Wiping Wiping
}

// Continues names an attachment: the disk's, and which of them. Run, where it is said, is who goes on, and nobody else's word: attachments for it that the daemon did not live to
// tell of stand in nobody's way.
type Continues struct {
	Disk  uuid.UUID
	Epoch uint64
	Run   string
}

// Attach makes a disk readable: its DEKs are unwrapped, its layers opened, and the catalog says so.
func (s *Service) Attach(ctx context.Context, request string, spec AttachSpec) (*Attachment, error) {
	d, err := s.claimNow(ctx, spec.Project, spec.Disk, toAttach)
	if err != nil {
		return nil, err
	}
	defer s.release(d)
	share := Share{ID: uuid.New(), By: spec.By, Since: s.Clock.Now(), ReadOnly: spec.ReadOnly, Device: spec.Device, Mount: spec.Mount}
	if a := s.attachment(d.ID); a != nil {
		return a, explain(d.Name, s.join(ctx, request, d, a, share, spec))
	}
	a := &Attachment{Disk: d.ID, Name: d.Name, Project: d.Project, Since: share.Since, ReadOnly: spec.ReadOnly, shares: []Share{share}}
	if err := s.enter(ctx, request, d, a, spec); err != nil {
		return nil, explain(d.Name, err)
	}
	if spec.Attached != nil {
		spec.Attached(a, share)
	}
	if a.Unclean && !a.ReadOnly {
		s.noteTold(a)
	}
	return a, nil
}

// enter has the disk attached. Nobody puts other layers into the place of its own meanwhile.
func (s *Service) enter(ctx context.Context, request string, d diskRecord, a *Attachment, spec AttachSpec) error {
	s.tree.RLock()
	defer s.tree.RUnlock()
	if err := s.open(ctx, request, d, a, spec); err != nil {
		return errors.Join(err, a.end(spec.Wiping))
	}
	s.mu.Lock()
	s.attached[d.ID] = a
	s.mu.Unlock()
	return nil
}

// open does the work of Attach; what it has opened when it fails is in a.
func (s *Service) open(ctx context.Context, request string, d diskRecord, a *Attachment, spec AttachSpec) error {
	layers, err := s.stack(ctx, d)
	if err != nil {
		return err
	}
	before, err := s.leftBehind(ctx, d)
	if err != nil {
		return err
	}
	left, err := s.takeOver(ctx, d)
	if err != nil {
		return err
	}
	if err := spec.Continues.since(before).may(d, left); err != nil {
		return err
	}
	if a.left = left; left != nil {
		a.Unclean, a.Warnings = true, append(a.Warnings, left.warning())
	}
	a.Stack, err = s.openStack(ctx, holder(d), d.Project, d.label(), layers, d.Size, stackOptions{ReadOnly: a.ReadOnly, Unclean: left != nil,
		Opening:   (&attachRecord{Disk: d.ID, Instance: s.Instance, Epoch: d.Epoch + 1}).opening(),
		OnFailure: func(err error) { s.noteFailure(a, err) }, Wiping: a.tell(spec.Wiping)})
	if err != nil {
		return err
	}
	if err := s.note(ctx, request, d, a, left, spec.Continues); err != nil {
		return err
	}
	if err := spec.Released(d.ID.String(), a.Key); err != nil {
		return errors.Join(err, s.takeBack(context.WithoutCancel(ctx), request+"/undo", a, left))
	}
	if d.HideHoles {
		a.Device.HideHoles()
	}
	return nil
}

// note puts the attachment into the catalog, before the first write.
func (s *Service) note(ctx context.Context, request string, d diskRecord, a *Attachment, left *attachRecord, from *Continues) error {
	a.record = attachRecord{Version: recordVersion, Disk: d.ID, Host: s.Host, Instance: s.Instance, Epoch: d.Epoch + 1,
		By: a.shares[0].By, ReadOnly: a.ReadOnly, Since: a.Since, Shares: a.shares}
	if from != nil && from.Run != "" {
		a.record.Run, a.record.From = from.Run, from.Epoch
	}
	for _, l := range a.opened() {
		a.record.Identities = append(a.record.Identities, l.Identities()...)
	}
	if left != nil {
		a.record.Unclean = true // for as long as nobody was told of it: who asks may be gone before that
		if a.ReadOnly {
			a.record.Lost = left.Lost // it mends nothing
		}
	}
	return s.update(ctx, request, func(t catalog.Txn) error {
		now, err := get(t, diskKey(d.ID), parseDisk)
		if err != nil {
			return err
		}
		if now.Epoch != d.Epoch {
			return refusal.New(refusal.Busy, "try again", "disk %s was attached by somebody else meanwhile", d.Name)
		}
		now.Epoch++
		return errors.Join(put(t, diskKey(d.ID), now), put(t, attachmentKey(d.ID), a.record))
	})
}

// takeBack undoes note, as if nobody had come. What the attachment before this one may have lost is still to be told.
func (s *Service) takeBack(ctx context.Context, request string, a *Attachment, left *attachRecord) error {
	return s.update(ctx, request, func(t catalog.Txn) error {
		now, err := get(t, diskKey(a.Disk), parseDisk)
		if err == nil && now.Epoch == a.record.Epoch {
			now.Epoch--
			if a.record.Run != "" {
				now.Epoch = a.record.From // so were those in between
			}
			err = put(t, diskKey(a.Disk), now)
		}
		if left != nil {
			return errors.Join(err, put(t, attachmentKey(a.Disk), *left))
		}
		return errors.Join(err, t.Delete(attachmentKey(a.Disk)))
	})
}

// end closes and wipes whatever of an attachment is open.
func (a *Attachment) end(wiping Wiping) error {
	if a.Stack == nil {
		return nil
	}
	return a.close(a.tell(wiping))
}

// tell has wiping, which may be nil, know whose keys they are.
func (a *Attachment) tell(wiping Wiping) func([]LayerKey) {
	if wiping == nil {
		return nil
	}
	return func(keys []LayerKey) { wiping(a, keys) }
}
