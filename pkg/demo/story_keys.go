package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"nbdcrypt/nbd/nbdclient"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// search looks where a thief of the machine's disk would: in all that is stored, the root key's file and the log too.
func search(ctx context.Context, t *tour) error {
	t.tell.note(fmt.Sprintf("Looking for %q in every file there is.", t.letters.secret))
	shown, err := ask[control.Disk](ctx, t, "disk", "show", plain)
	if err != nil {
		return err
	}
	known, err := t.scanFiles(segments(shown))
	if err != nil {
		return err
	}
	everything, err := scanTree(t.dir, t.letters.secret)
	if err != nil {
		return err
	}
	stored, err := allocated(t.files)
	if err != nil {
		return err
	}
	elsewhere := slices.DeleteFunc(everything.in, func(path string) bool { return slices.Contains(known.in, path) })
	size := t.letters.size()
	return t.tell.all(
		check{known.hits > 0, fmt.Sprintf("the words stand %d times in the plain disk's file: the search works", known.hits), "no hit"},
		check{stored >= size, fmt.Sprintf("the vault's file is not empty: %s for the %s that were written", mib(stored), mib(size)), mib(stored)},
		check{len(elsewhere) == 0, fmt.Sprintf("in the %d other files (the vault's, the key store, the log; %s) they stand 0 times",
			everything.files-known.files, mib(everything.bytes-known.bytes)), elsewhere})
}

func (t *tour) scanFiles(paths []string) (all found, err error) {
	for _, path := range paths {
		one, err := scanFile(path, t.letters.secret)
		if err != nil {
			return all, fmt.Errorf("searching: %w", err)
		}
		all.add(one)
	}
	return all, nil
}

// allocated is how much room files take, which for sparse ones is less than their size.
func allocated(paths []string) (n int64, err error) {
	for _, path := range paths {
		var stat syscall.Stat_t
		if err := syscall.Stat(path, &stat); err != nil {
			return 0, &fs.PathError{Op: "stat", Path: path, Err: err}
		}
		n += stat.Blocks * 512
	}
	return n, nil
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// keyMemory tells what keeps the key from others while the disk is attached.
func keyMemory(ctx context.Context, t *tour) error {
	s, err := ask[control.Status](ctx, t, "status", "--keys")
	if err != nil {
		return err
	}
	for _, k := range s.Keys {
		t.tell.said(fmt.Sprintf("%-7s  %-36s  %s", k.Kind, k.ID, k.For))
	}
	means := map[string]string{
		"memfd_secret":  "memory that not even the kernel has mapped (memfd_secret), left out of swap and core dumps",
		"locked memory": "memory that is locked (never in swap) and left out of core dumps; this kernel has no memfd_secret",
	}[s.KeyMemory.Kind]
	return t.tell.all(
		check{slices.ContainsFunc(s.Keys, isDEK), "the disk's key (its DEK) is in the daemon's memory", s.Keys},
		check{means != "", "there it lies in " + means, s.KeyMemory.Kind})
}

func isDEK(k control.HeldKey) bool { return k.Kind == "dek" }

func detach(ctx context.Context, t *tour) error {
	gone, err := ask[control.Detached](ctx, t, "detach", vault, "--attest")
	if err != nil {
		return err
	}
	if gone.Attest == nil {
		return fmt.Errorf("the detach of %s says nothing of a search", vault)
	}
	err = t.tell.all(
		check{gone.Disk == vault, vault + " is detached", gone},
		check{gone.Attest.Bytes > 0 && len(gone.Attest.Hits) == 0,
			fmt.Sprintf("the daemon has searched its own memory (%s) for the key: no trace of it", mib(gone.Attest.Bytes)), gone.Attest.Hits})
	if err != nil {
		return err
	}
	c, err := nbdclient.Dial(ctx, t.uri)
	if err == nil {
		_ = c.Disconnect()
	}
	if err := t.tell.all(check{errors.Is(err, syscall.ENOENT), "an NBD client that comes now is turned away: no such export", err}); err != nil {
		return err
	}
	s, err := ask[control.Status](ctx, t, "status", "--keys")
	if err != nil {
		return err
	}
	return t.tell.all(check{!slices.ContainsFunc(s.Keys, isDEK), "no disk's key is in memory any more", s.Keys})
}

func disable(ctx context.Context, t *tour) error {
	key, err := ask[control.Key](ctx, t, "key", "disable", ownKey)
	if err != nil {
		return err
	}
	if err := t.tell.all(check{key.State == "Disabled", "key " + ownKey + " is " + key.State, key}); err != nil {
		return err
	}
	return t.refused(ctx, refusal.KeyForbids, "attach", vault)
}

func enable(ctx context.Context, t *tour) error {
	key, err := ask[control.Key](ctx, t, "key", "enable", ownKey)
	if err != nil {
		return err
	}
	if err := t.tell.all(check{key.State == "Enabled", "key " + ownKey + " is " + key.State, key}); err != nil {
		return err
	}
	at, err := t.attach(ctx, vault)
	if err != nil {
		return err
	}
	read, err := t.medium.get(ctx, t, at.URI, t.letters.vault)
	if err != nil {
		return err
	}
	return t.compare(t.letters.vault, read)
}

// compare holds what was read against what was written.
func (t *tour) compare(wrote, read []letter) error {
	for i, l := range wrote {
		same := i < len(read) && bytes.Equal(read[i].text, l.text)
		if err := t.tell.all(check{same, fmt.Sprintf("%s is the same, byte for byte: sha256 %s", l.name, l.sum()), "it differs"}); err != nil {
			return err
		}
	}
	return nil
}
