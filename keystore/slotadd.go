package keystore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/pkg/durable"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

const (
	// maxOfKind bounds how many slots of one kind there are: a wrong passphrase costs a computation for each.
	maxOfKind     = 8
	slotTemporary = ".tmp"
)

// fresh is the way of a slot that is being made.
type fresh struct {
	way way
	// secret is what the root key gets wrapped under. Whoever asked for it wipes it.
	secret *secret.Key
	// given is what opens the slot later, where the way can't get it by itself yet.
	given *secret.Key
}

// addSlot makes a slot. It was opened once, as unlocking would, before it counts. make gets the slot without its way.
func (r *Root) addSlot(ctx context.Context, kind, name string, make func(slot) (fresh, error)) (SlotInfo, error) {
	r.making.Lock()
	defer r.making.Unlock()
	if err := errors.Join(r.needOpen(), r.mayAdd(kind, name)); err != nil {
		return SlotInfo{}, err
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return SlotInfo{}, fmt.Errorf("keystore: %w", err)
	}
	return r.fillSlot(ctx, slot{store: r.Store, id: id, kind: kind, name: name, created: time.Now().UTC().Truncate(time.Second)}, false, make)
}

// fillSlot gives a slot its way and its file, in place of the one that it has if it is made again.
func (r *Root) fillSlot(ctx context.Context, s slot, again bool, make func(slot) (fresh, error)) (SlotInfo, error) {
	f, err := make(s)
	if err == nil {
		s.way = f.way
		err = r.wrapRoot(&s, f.secret)
		f.secret.Destroy()
	}
	if err == nil {
		err = r.keepSlot(ctx, s, again, f.given)
	}
	if errors.Is(err, syscall.ENOSPC) {
		err = refusal.New(refusal.Failed, "make room in the file system of the state directory, then try again", "no space left for a slot: %w", err)
	}
	if err != nil {
		return SlotInfo{}, fullRefusal(err)
	}
	return foundSlot{slot: s}.info(), nil
}

func (r *Root) mayAdd(kind, name string) error {
	if err := r.noSlots(); err != nil {
		return err
	}
	if !nameRule.MatchString(name) {
		return refusal.New(refusal.Usage, "use 1 to 64 letters, digits, '.', '_' or '-'", "%.300q can't be a slot's name", name)
	}
	// A slot is named by its id or its name, and removing one must not mean another.
	if name == KeyFileSlot || isUUID(strings.ToLower(name)) {
		return refusal.New(refusal.Usage, "choose another name", "%s is the name of a slot already, or looks like a slot's id", name)
	}
	found, err := r.findSlots()
	if err != nil {
		return err
	}
	same := 0
	for _, f := range found {
		if f.name == name {
			return refusal.New(refusal.Busy, "choose another name", "slot %s has the name %s already", f.id, name)
		}
		if f.kind == kind || f.bad != nil {
			same++
		}
	}
	if same >= maxOfKind {
		return refusal.New(refusal.Busy, "remove one with `nbdcrypt root slot remove`", "there are %d slots of kind %s, or damaged, and no more are made", same, kind)
	}
	return nil
}

// wrapRoot wraps the root key for a slot that has its way.
func (r *Root) wrapRoot(s *slot, wrapping *secret.Key) error {
	return r.use(func(root []byte) (err error) {
		s.wrapped, err = sealBlob(material{key: wrapping.Bytes()}, s.identity(), root)
		return err
	})
}

// keepSlot writes a slot's file, and names it as one once it was opened.
func (r *Root) keepSlot(ctx context.Context, s slot, again bool, given *secret.Key) error {
	b, err := s.encode()
	if err != nil {
		return err
	}
	if err := r.prepareSlots(); err != nil {
		return err
	}
	path := r.slotPath(s.id)
	tmp, err := writeNew(path, b)
	if err != nil {
		return fmt.Errorf("keystore: write %s: %w", path, err)
	}
	if err = r.proveSlot(ctx, tmp, given); err == nil {
		err = r.nameSlot(s.id, again, tmp)
	}
	if err != nil {
		return errors.Join(err, wipeFile(tmp))
	}
	if err := durable.Dir(r.slotsDir()); err != nil {
		if !again { // nobody is told what opens it
			err = errors.Join(err, wipeFile(path))
		}
		return fmt.Errorf("keystore: %w", err)
	}
	return nil
}

// nameSlot makes a file one of the slots, unless the one that it is to replace was removed meanwhile.
func (r *Root) nameSlot(id uuid.UUID, again bool, tmp string) error {
	r.ways.Lock()
	defer r.ways.Unlock()
	path := r.slotPath(id)
	if again && !exists(path) {
		return refusal.New(refusal.NotFound, "`nbdcrypt root slot list` lists them", "there is no slot %s any more", id)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("keystore: %w", err)
	}
	return nil
}

// proveSlot opens a slot's file as unlocking would.
func (r *Root) proveSlot(ctx context.Context, path string, given *secret.Key) error {
	s, err := readSlotFile(path)
	if err != nil {
		return fmt.Errorf("keystore: a new slot does not read back: %w", err)
	}
	key, err := r.openSlot(ctx, s, given, secret.Work)
	if err != nil {
		return fmt.Errorf("keystore: a new slot does not open: %w", err)
	}
	key.Destroy()
	return nil
}

// prepareSlots makes the folder, and removes what a power cut left in it.
func (r *Root) prepareSlots() error {
	err := os.Mkdir(r.slotsDir(), 0o700)
	if err == nil {
		err = durable.Dir(r.stateDir)
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("keystore: %w", err)
	}
	entries, err := os.ReadDir(r.slotsDir())
	for _, e := range entries {
		if id, _, ok := strings.Cut(e.Name(), slotTemporary); ok && isUUID(id) {
			err = errors.Join(err, wipeFile(filepath.Join(r.slotsDir(), e.Name())))
		}
	}
	return err
}
