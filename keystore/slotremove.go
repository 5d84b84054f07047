package keystore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/durable"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

// RemoveSlot wipes and removes what a slot is kept in, be it damaged; the key file too. It never removes the last one that
// could open the root key, and none while that is locked: only while it is open can a mistake be mended.
func (r *Root) RemoveSlot(ctx context.Context, id string) error {
	r.ways.Lock()
	defer r.ways.Unlock()
	if err := errors.Join(ctx.Err(), r.needOpen()); err != nil {
		return err
	}
	if err := r.noSlots(); err != nil {
		return err
	}
	path, err := r.findSlot(id)
	if err != nil {
		return err
	}
	proven := func(except string) ([]string, error) { return r.provenSlot(ctx, except) }
	if err := r.otherWay(id, proven); err != nil {
		return err
	}
	if err := wipeFile(path); err != nil {
		return refusal.New(refusal.Failed, "see that the daemon's user may write there, then remove the slot again", "slot %s was not removed: %w", id, err)
	}
	return nil
}

// findSlot tells which file a slot is.
func (r *Root) findSlot(id string) (path string, err error) {
	if id == KeyFileSlot && exists(r.keyFile) {
		return r.keyFile, r.checkKeyFile()
	}
	found, err := r.findSlots()
	for _, f := range found {
		if f.id.String() == id {
			return r.slotPath(f.id), checkRegular(r.slotPath(f.id))
		}
	}
	if err != nil {
		return "", err
	}
	return "", refusal.New(refusal.NotFound, "`nbdcrypt root slot list` lists them", "there is no slot %.100q", id)
}

// checkRegular refuses to remove what was put in a slot's place and can't have been one.
func checkRegular(path string) error {
	if st, err := os.Lstat(path); err == nil && !st.Mode().IsRegular() {
		return refusal.New(refusal.Failed, "look at what it is; where nothing needs it, remove it by hand", "%s is no file of a slot: it is not a regular file", path)
	}
	return nil
}

// checkKeyFile refuses to remove a file that may be something else than this store's key, whole or damaged.
func (r *Root) checkKeyFile() error {
	key, err := r.loadFile()
	if err == nil {
		key.Destroy()
		return nil
	}
	if refusal.CodeOf(err) != refusal.Damaged {
		return err
	}
	text, n, err := readRootFile(r.keyFile)
	if err != nil {
		return err
	}
	defer text.Destroy()
	ours := false
	secret.Do(func() {
		b := text.Bytes()[:n]
		ours = bytes.HasPrefix(b, []byte(rootKind+" ")) || allZero(b)
	})
	if !ours {
		return refusal.New(refusal.Failed, "look at what it is; where nothing needs it, remove it by hand", "%s is no root key file", r.keyFile)
	}
	return nil
}

// wipeFile writes zeros over a file in its place, waits until the disk has them, and removes it.
func wipeFile(path string) error {
	err := overwrite(path)
	if err == nil {
		err = os.Remove(path)
	}
	if err == nil {
		err = durable.Dir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("keystore: wipe %s: %w", path, err)
	}
	return nil
}

// overwrite leaves alone what can't be a file of ours: no more than the longest one is written.
func overwrite(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err == nil {
		_, err = f.WriteAt(make([]byte, min(st.Size(), maxTextFile)), 0)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
