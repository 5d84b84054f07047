package keystore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/pkg/child"
	"nbdcrypt/pkg/durable"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

const (
	// MinPassphrase and MaxPassphrase bound a passphrase's bytes.
	MinPassphrase = 8
	MaxPassphrase = child.MaxPass
	// maxPassphrases bounds what a wrong passphrase costs.
	maxPassphrases = 8
	slotTemporary  = ".tmp"
)

// UnlockPassphrase opens the root key by whichever slot the passphrase opens, and tells which.
func (r *Root) UnlockPassphrase(ctx context.Context, pass *secret.Key) (SlotInfo, error) {
	found, err := r.findSlots()
	if err != nil {
		return SlotInfo{}, err
	}
	f, key, err := r.tryAll(ctx, found, pass)
	if err != nil {
		return SlotInfo{}, fullRefusal(err)
	}
	return f.info(), r.adopt(key)
}

// tryAll opens the root key by the first slot that takes the passphrase. One that fails for other reasons than the
// passphrase keeps no other from being tried.
func (r *Root) tryAll(ctx context.Context, found []foundSlot, pass *secret.Key) (foundSlot, *secret.Key, error) {
	var failed error
	tried := 0
	for _, f := range found {
		if f.bad != nil {
			continue
		}
		tried++
		if n := pass.Len(); n < MinPassphrase || n > MaxPassphrase {
			continue // no slot was made with it
		}
		key, err := r.tryPassphrase(ctx, f.slot, pass, secret.New)
		switch {
		case err == nil:
			return f, key, nil
		case ctx.Err() != nil:
			return f, nil, err
		case !errors.Is(err, errBlob):
			failed = errors.Join(failed, fmt.Errorf("slot %s: %w", f.id, err))
		}
	}
	if failed != nil {
		return foundSlot{}, nil, failed
	}
	if tried == 0 {
		return foundSlot{}, nil, refusal.New(refusal.Locked, "`nbdcrypt root slot list` shows what could open it", "no slot of this store takes a passphrase")
	}
	return foundSlot{}, nil, refusal.New(refusal.Locked, "type it as it was set, byte for byte; `nbdcrypt root slot list` shows the slots",
		"the passphrase opens no slot")
}

// tryPassphrase opens a slot into a key that memory gives; errBlob where the passphrase is another.
func (r *Root) tryPassphrase(ctx context.Context, s slot, pass *secret.Key,
	memory func(int, secret.Purpose) (*secret.Key, error)) (*secret.Key, error) {
	wrapping, err := child.Argon2(ctx, pass, s.cost, s.salt)
	if err != nil {
		return nil, err
	}
	defer wrapping.Destroy()
	key, err := memory(keySize, rootPurpose(r.Store))
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	if err = openBlob(key.Bytes(), material{key: wrapping.Bytes()}, s.identity(), s.wrapped); err == nil {
		err = r.checkRoot(key)
	}
	if err != nil {
		key.Destroy()
		return nil, err
	}
	return key, nil
}

// checkRoot holds a key that a slot gave against the store's header.
func (r *Root) checkRoot(key *secret.Key) error {
	have, err := newHeader(key, r.Store)
	if err == nil && have.rootID != r.header.rootID {
		err = refusal.New(refusal.Damaged, "restore the state directory from a backup", "it opens to a key that is not this store's root key")
	}
	return err
}

// AddPassphrase makes a slot that the passphrase opens. It was opened once before it counts.
func (r *Root) AddPassphrase(ctx context.Context, name string, pass *secret.Key) (SlotInfo, error) {
	r.ways.Lock()
	defer r.ways.Unlock()
	if err := errors.Join(r.needOpen(), checkPassphrase(pass), r.mayAdd(name)); err != nil {
		return SlotInfo{}, err
	}
	s, err := r.wrapRoot(ctx, name, pass)
	if err == nil {
		err = r.keepSlot(ctx, s, pass)
	}
	if errors.Is(err, syscall.ENOSPC) {
		err = refusal.New(refusal.Failed, "make room in the file system of the state directory, then try again", "no space left for a slot: %w", err)
	}
	if err != nil {
		return SlotInfo{}, fullRefusal(err)
	}
	return foundSlot{slot: s}.info(), nil
}

func checkPassphrase(pass *secret.Key) error {
	if n := pass.Len(); n < MinPassphrase || n > MaxPassphrase {
		return refusal.New(refusal.Usage, fmt.Sprintf("choose one of %d to %d bytes", MinPassphrase, MaxPassphrase), "a passphrase of %d bytes is not taken", n)
	}
	return nil
}

func (r *Root) mayAdd(name string) error {
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
	for _, f := range found {
		if f.name == name {
			return refusal.New(refusal.Busy, "choose another name", "slot %s has the name %s already", f.id, name)
		}
	}
	if len(found) >= maxPassphrases {
		return refusal.New(refusal.Busy, "remove one with `nbdcrypt root slot remove`", "there are %d slots, and no more are made", len(found))
	}
	return nil
}

// wrapRoot wraps the root key in a new slot.
func (r *Root) wrapRoot(ctx context.Context, name string, pass *secret.Key) (s slot, err error) {
	s = slot{store: r.Store, kind: kindPassphrase, name: name, created: time.Now().UTC().Truncate(time.Second), cost: newCost, salt: make([]byte, saltSize)}
	if s.id, err = uuid.NewRandom(); err != nil {
		return s, fmt.Errorf("keystore: %w", err)
	}
	rand.Read(s.salt)
	wrapping, err := child.Argon2(ctx, pass, s.cost, s.salt)
	if err != nil {
		return s, err
	}
	defer wrapping.Destroy()
	err = r.use(func(root []byte) error {
		s.wrapped, err = sealBlob(material{key: wrapping.Bytes()}, s.identity(), root)
		return err
	})
	return s, err
}

// keepSlot writes a slot's file, and names it as one once the passphrase has opened it.
func (r *Root) keepSlot(ctx context.Context, s slot, pass *secret.Key) error {
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
	if err := r.proveSlot(ctx, tmp, pass); err != nil {
		return errors.Join(err, wipeFile(tmp))
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(fmt.Errorf("keystore: %w", err), wipeFile(tmp))
	}
	if err := durable.Dir(r.slotsDir()); err != nil {
		return errors.Join(fmt.Errorf("keystore: %w", err), wipeFile(path))
	}
	return nil
}

// proveSlot opens a slot's file as unlocking would.
func (r *Root) proveSlot(ctx context.Context, path string, pass *secret.Key) error {
	s, err := readSlotFile(path)
	if err != nil {
		return fmt.Errorf("keystore: a new slot does not read back: %w", err)
	}
	key, err := r.tryPassphrase(ctx, s, pass, secret.Work)
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
