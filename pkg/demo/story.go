package demo

import (
	"context"
	"fmt"
	"slices"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// What the story is about.
const (
	vault     = "vault" // encrypted, under a key of the user's own
	plain     = "plain" // not encrypted
	second    = "diary" // encrypted, under the default key
	ownKey    = "my-key"
	vaultSize = "256M"
)

// story is the tour, in the order in which it is told; boots is whether there can be a server.
func story(boots bool) []step {
	steps := []step{
		{"A daemon of its own, with nothing in it", start},
		{"Without the key store's rights nobody encrypts", ungranted},
		{"The rights are granted, and a default key appears", grant},
		{"A key of your own", createKey},
		{"An encrypted disk under that key, and a plain one to compare", createDisks},
		{"Attach the disk: now it can be read, by you", attach},
		{"Write to it", writeVault},
		{"Write the same to the plain disk", writePlain},
		{"What does a thief see? A search for the words that were written", search},
		{"Where the key is meanwhile", keyMemory},
		{"Detach the disk: its key is gone, and so is the way in", detach},
		{"Disable the key: the disk can't be attached", disable},
		{"Enable the key: everything is there again", enable},
		{"A new version of the key, under the attached disk", renew},
		{"A snapshot, in no time, and a disk grown from it", snapshot},
		{"A backup, and a disk made of it under another key", backup},
		{"Another data key for the disk, while it is attached", rekey},
		{"A crash: kill -9, straight after a flush", crash},
		{"Start again: what was flushed is there", restart},
		{"What would deleting the key cost?", foresee},
		{"Schedule its deletion, and think better of it", schedule},
		{"Was the log of all this touched?", verify},
		{"Delete the disks", deleteDisks},
	}
	if boots {
		steps = append(steps, serverSteps()...)
	} else {
		steps = append(steps, step{"A server that boots from an encrypted image: not here", noServer})
	}
	return append(steps, step{"Stop the daemon", stop})
}

func start(ctx context.Context, t *tour) error {
	if err := t.serve(ctx); err != nil {
		return err
	}
	keys, err := ask[[]control.Key](ctx, t, "key", "list")
	if err != nil {
		return err
	}
	return t.tell.all(check{len(keys) == 0, "there is no key yet", keys})
}

func ungranted(ctx context.Context, t *tour) error {
	return t.refused(ctx, refusal.Denied, "disk", "create", vault, "--size", vaultSize, "--encrypted")
}

func grant(ctx context.Context, t *tour) error {
	given, err := ask[control.Grant](ctx, t, "grant", "create")
	if err != nil {
		return err
	}
	err = t.tell.all(check{given.Project == control.DefaultProject, "project " + given.Project + " may encrypt, granted by " + given.By, given})
	if err != nil {
		return err
	}
	keys, err := ask[[]control.Key](ctx, t, "key", "list")
	if err != nil {
		return err
	}
	return t.tell.all(
		check{len(keys) == 1 && keys[0].Default && keys[0].Alias == "evs/default", "one key has appeared: evs/default", keys})
}

func createKey(ctx context.Context, t *tour) error {
	key, err := ask[control.Key](ctx, t, "key", "create", ownKey)
	if err != nil {
		return err
	}
	return t.tell.all(check{key.State == "Enabled" && !key.Default, "key " + key.Alias + " is " + key.State, key})
}

func createDisks(ctx context.Context, t *tour) error {
	disk, err := ask[control.Disk](ctx, t, "disk", "create", vault, "--size", vaultSize, "--encrypted", "--key", ownKey)
	if err != nil {
		return err
	}
	err = t.tell.all(
		check{disk.Encrypted && disk.Key != nil && disk.Key.Alias == ownKey, "it is encrypted, under " + ownKey, disk},
		check{disk.Size == 256<<20, fmt.Sprintf("it has exactly its size: %d bytes", disk.Size), disk.Size})
	if err != nil {
		return err
	}
	t.files = segments(disk)
	other, err := ask[control.Disk](ctx, t, "disk", "create", plain, "--size", vaultSize, "--plain")
	if err != nil {
		return err
	}
	return t.tell.all(check{!other.Encrypted && other.Key == nil, "this one is not encrypted", other})
}

func segments(disk control.Disk) (files []string) {
	for _, layer := range disk.Layers {
		files = append(files, layer.Segments...)
	}
	return files
}

func attach(ctx context.Context, t *tour) error {
	at, err := t.attach(ctx, vault)
	if err != nil {
		return err
	}
	t.uri = at.URI
	if err := t.tell.all(check{at.Disk == vault, "it is exported as " + t.short(at.URI), at}); err != nil {
		return err
	}
	disk, err := ask[control.Disk](ctx, t, "disk", "show", vault)
	if err != nil {
		return err
	}
	if len(disk.Attachments) != 1 {
		return fmt.Errorf("%s has %d attachments", vault, len(disk.Attachments))
	}
	a := disk.Attachments[0]
	return t.tell.all(check{disk.Status == "in-use" && len(a.Allow) == 0,
		fmt.Sprintf("attached by %s, and opened to no other user (--allow would)", a.By), a})
}

func (t *tour) attach(ctx context.Context, disk string) (control.Attached, error) {
	return ask[control.Attached](ctx, t, "attach", disk)
}

func writeVault(ctx context.Context, t *tour) error {
	t.tell.note(t.medium.name())
	return t.medium.put(ctx, t, t.uri, t.letters.vault)
}

func writePlain(ctx context.Context, t *tour) error {
	at, err := t.attach(ctx, plain)
	if err != nil {
		return err
	}
	if err := t.medium.put(ctx, t, at.URI, t.letters.vault[:1]); err != nil {
		return err
	}
	return t.detach(ctx, plain)
}

func (t *tour) detach(ctx context.Context, disk string) error {
	gone, err := ask[control.Detached](ctx, t, "detach", disk)
	if err != nil {
		return err
	}
	return t.tell.all(check{gone.Disk == disk, disk + " is detached", gone})
}

func deleteDisks(ctx context.Context, t *tour) error {
	for _, disk := range []string{vault, plain, second} {
		if err := t.do(ctx, "disk", "delete", disk, "--yes"); err != nil {
			return err
		}
	}
	left, err := ask[[]control.Disk](ctx, t, "disk", "list")
	if err != nil {
		return err
	}
	there := slices.DeleteFunc(slices.Clone(t.files), missing)
	return t.tell.all(
		check{len(left) == 0, "there is no disk any more", left},
		check{len(there) == 0, "and the vault's data file is gone", there})
}
