package volume

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
	"nbdcrypt/pkg/volume/cryptdev"
	"nbdcrypt/pkg/volume/layer"
	"nbdcrypt/xts"
)

// Attachment is a disk that is readable on this host: open layers, and the ciphers of their DEKs.
type Attachment struct {
	Disk     uuid.UUID
	Name     string
	Project  string
	Since    time.Time
	By       string
	ReadOnly bool
	Device   *cryptdev.Device
	// Key names the CMK version that was used; nil for a plain disk.
	Key *keystore.KeyVersionRef
	// Warnings say what the attachment before this one may have lost.
	Warnings []string

	record attachRecord
	layers []*layer.Layer
	keys   []heldCipher
}

// heldCipher is a layer's cipher with the memory that its schedules lie in.
type heldCipher struct {
	layer  uuid.UUID
	cipher *xts.Cipher
	memory *secret.Key
}

// wipe leaves nothing of the key.
func (h heldCipher) wipe() {
	h.cipher.Wipe()
	h.memory.Destroy()
}

// LayerKey is the key of a layer, as package xts has expanded it.
type LayerKey struct {
	Layer     string
	Schedules []byte
}

// Wiping is told of the keys of an attachment right before they are wiped. The bytes are lent for the time of the call; a plain
// disk has none, and there is no call.
type Wiping func(a *Attachment, keys []LayerKey)

// AttachSpec says how to attach.
type AttachSpec struct {
	Project, Disk string
	By            string
	ReadOnly      bool
	// Released is called when all else is done and before anything uses the key that was unwrapped; an error takes the
	// attach back. This is where the audit record is synced.
	Released func(disk string, key *keystore.KeyVersionRef) error
	// Attached is called last, while a detach still has to wait: what it opens to clients a detach finds and closes.
	Attached func(*Attachment)
	// Wiping is for an attach that fails when keys are unwrapped already. It may be nil.
	Wiping Wiping
}

// Attach makes a disk readable: its DEKs are unwrapped, its layers opened, and the catalog says so.
func (s *Service) Attach(ctx context.Context, request string, spec AttachSpec) (*Attachment, error) {
	d, err := s.lookUp(ctx, spec.Project, spec.Disk)
	if err != nil {
		return nil, err
	}
	if err := s.claim(d, Attaching); err != nil {
		return nil, err
	}
	defer s.release(d)
	// What was read before the claim may be old by now.
	if d, err = s.lookUp(ctx, spec.Project, d.ID.String()); err != nil {
		return nil, err
	}
	if err := d.whole(); err != nil {
		return nil, err
	}
	if s.attachment(d.ID) != nil {
		return nil, refusal.New(refusal.Busy, "run `nbdcrypt detach "+d.Name+"` first, or use the attachment that `nbdcrypt disk show` prints",
			"disk %s is attached already", d.Name)
	}
	a := &Attachment{Disk: d.ID, Name: d.Name, Project: d.Project, Since: s.Clock.Now(), By: spec.By, ReadOnly: spec.ReadOnly}
	if err := s.open(ctx, request, d, a, spec); err != nil {
		a.end(spec.Wiping)
		return nil, explain(d.Name, err)
	}
	s.mu.Lock()
	s.attached[d.ID] = a
	s.mu.Unlock()
	if spec.Attached != nil {
		spec.Attached(a)
	}
	return a, nil
}

// open does the work of Attach; what it has opened when it fails is in a.
func (s *Service) open(ctx context.Context, request string, d diskRecord, a *Attachment, spec AttachSpec) error {
	layers, err := s.stack(ctx, d)
	if err != nil {
		return err
	}
	left, err := s.takeOver(ctx, d)
	if err != nil {
		return err
	}
	if left != nil {
		a.Warnings = append(a.Warnings, left.warning())
	}
	if err := s.unwrapAll(ctx, d, layers, a); err != nil {
		return err
	}
	stack, err := s.openLayers(ctx, d, layers, a, left != nil)
	if err != nil {
		return err
	}
	if err := s.note(ctx, request, d, a, left); err != nil {
		return err
	}
	if err := spec.Released(d.ID.String(), a.Key); err != nil {
		return errors.Join(err, s.takeBack(context.WithoutCancel(ctx), request+"/undo", a, left))
	}
	a.Device = cryptdev.New(stack, d.Size, a.ReadOnly)
	if d.HideHoles {
		a.Device.HideHoles()
	}
	return nil
}

// unwrapAll opens the DEK of every layer and expands it where it will be used; the DEK itself does not stay.
func (s *Service) unwrapAll(ctx context.Context, d diskRecord, layers []layerRecord, a *Attachment) error {
	if !d.Encrypted {
		return nil
	}
	for _, l := range layers {
		held, key, err := s.unwrap(ctx, d, l)
		if err != nil {
			return err
		}
		a.keys = append(a.keys, held)
		if a.Key == nil {
			a.Key = &key
		}
	}
	return nil
}

func (s *Service) unwrap(ctx context.Context, d diskRecord, l layerRecord) (heldCipher, keystore.KeyVersionRef, error) {
	dek, key, err := s.Keys.UnwrapDEK(ctx, d.Project, holder(d), l.ID.String(), l.SectorSize)
	if err != nil {
		return heldCipher{}, key, fmt.Errorf("disk %s can't be attached: %w", d.Name, err)
	}
	defer dek.Destroy()
	memory, err := secret.New(xts.Size, secret.Purpose{Kind: "dek", ID: l.ID.String(), For: "disk " + d.Project + "/" + d.Name})
	if err != nil {
		return heldCipher{}, key, keyMemory(err)
	}
	var cipher *xts.Cipher
	secret.Do(func() { cipher, err = xts.New(memory.Bytes(), dek.Bytes()) })
	if err != nil {
		memory.Destroy()
		return heldCipher{}, key, fmt.Errorf("volume: the key of layer %s: %w", l.ID, err)
	}
	return heldCipher{l.ID, cipher, memory}, key, nil
}

// keyMemory makes a refusal of a full arena.
func keyMemory(err error) error {
	if errors.Is(err, secret.ErrFull) {
		return refusal.New(refusal.Failed, "detach a disk, or raise the limit of locked memory (LimitMEMLOCK, ulimit -l)",
			"no memory left for keys: %w", err)
	}
	return err
}

// openLayers opens the stack: the top for writing, what is below it for reading.
func (s *Service) openLayers(ctx context.Context, d diskRecord, layers []layerRecord, a *Attachment, unclean bool) ([]cryptdev.Layer, error) {
	stack := make([]cryptdev.Layer, len(layers))
	for i, l := range layers {
		size := l.Size
		if i == 0 {
			size = d.Size
		}
		open, err := layer.Open(ctx, s.Pool, l.header(), size, layer.Options{
			ReadOnly: a.ReadOnly || i > 0, Unclean: unclean, OnFailure: func(err error) { s.noteFailure(a, err) },
		})
		if err != nil {
			return nil, err
		}
		a.layers = append(a.layers, open)
		stack[i] = cryptdev.Layer{Layer: open, Size: size}
		if d.Encrypted {
			stack[i].Cipher = a.keys[i].cipher
		}
	}
	return stack, nil
}

// note puts the attachment into the catalog, before the first write.
func (s *Service) note(ctx context.Context, request string, d diskRecord, a *Attachment, left *attachRecord) error {
	a.record = attachRecord{Version: recordVersion, Disk: d.ID, Host: s.Host, Instance: s.Instance, Epoch: d.Epoch + 1,
		By: a.By, ReadOnly: a.ReadOnly, Since: a.Since}
	for _, l := range a.layers {
		a.record.Identities = append(a.record.Identities, l.Identities()...)
	}
	if a.ReadOnly && left != nil {
		a.record.Unclean, a.record.Lost = true, left.Lost // it mends nothing
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

// takeBack undoes note. What the attachment before this one may have lost is still to be told.
func (s *Service) takeBack(ctx context.Context, request string, a *Attachment, left *attachRecord) error {
	if left == nil {
		return s.closeRecord(ctx, request, a, nil)
	}
	return s.update(ctx, request, func(t catalog.Txn) error { return put(t, attachmentKey(a.Disk), *left) })
}

// end closes and wipes whatever of an attachment is open.
func (a *Attachment) end(wiping Wiping) error {
	var errs []error
	for _, l := range a.layers {
		errs = append(errs, l.Close())
	}
	if wiping != nil && len(a.keys) > 0 {
		wiping(a, a.lendKeys())
	}
	for _, k := range a.keys {
		k.wipe()
	}
	a.layers, a.keys = nil, nil
	return errors.Join(errs...)
}

func (a *Attachment) lendKeys() (keys []LayerKey) {
	for _, k := range a.keys {
		keys = append(keys, LayerKey{k.layer.String(), k.memory.Bytes()})
	}
	return keys
}
