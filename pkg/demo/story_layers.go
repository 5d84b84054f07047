package demo

import (
	"context"
	"fmt"
	"slices"

	"nbdcrypt/pkg/control"
)

// What is made of the vault.
const (
	moment   = "monday"   // a snapshot of it
	linked   = "twin"     // a disk that stands on the snapshot
	kept     = "tape"     // a backup of it
	restored = "restored" // a disk made of the backup
)

// snapshot keeps a moment of the vault, and grows a disk from it.
func snapshot(ctx context.Context, t *tour) error {
	s, err := ask[control.Snapshot](ctx, t, "snapshot", "create", vault, moment)
	if err != nil {
		return err
	}
	err = t.tell.all(check{s.Status == "available" && s.Key != nil && s.Key.Alias == ownKey, "snapshot " + s.Name + " is there, under " + ownKey + "; nothing was copied", s})
	if err != nil {
		return err
	}
	disk, err := ask[control.Disk](ctx, t, "disk", "create", linked, "--from-snapshot", moment)
	if err != nil {
		return err
	}
	err = t.tell.all(check{len(disk.Layers) == 2, "disk " + linked + " stands on the snapshot's layer, and writes to one with a key of its own", disk.Layers})
	if err != nil {
		return err
	}
	return t.holdsLetters(ctx, linked)
}

// holdsLetters attaches a disk made of the vault, and reads from it what was written to the vault.
func (t *tour) holdsLetters(ctx context.Context, disk string) error {
	at, err := t.attach(ctx, disk)
	if err != nil {
		return err
	}
	read, err := t.medium.get(ctx, t, at.URI, t.letters.vault)
	if err != nil {
		return err
	}
	if err := t.compare(t.letters.vault, read); err != nil {
		return err
	}
	return t.detach(ctx, disk)
}

// backup makes a backup of the vault, while that is attached, and a disk of it under another key.
func backup(ctx context.Context, t *tour) error {
	b, err := ask[control.Backup](ctx, t, "backup", "create", vault, kept)
	if err != nil {
		return err
	}
	if err := t.tell.all(check{b.Encrypted && b.Length > 0, fmt.Sprintf("backup %s is one file of %s, as encrypted as the disk", b.Name, mib(b.Length)), b}); err != nil {
		return err
	}
	if err := t.do(ctx, "backup", "verify", kept); err != nil {
		return err
	}
	disk, err := ask[control.Disk](ctx, t, "disk", "create", restored, "--from-backup", kept, "--key", "evs/default")
	if err != nil {
		return err
	}
	if err := t.tell.all(check{disk.Key != nil && disk.Key.Alias == "evs/default", "disk " + restored + " has what was in it, under another key", disk}); err != nil {
		return err
	}
	return t.holdsLetters(ctx, restored)
}

// rekey gives the attached vault another data key, once nobody needs the old one any more.
func rekey(ctx context.Context, t *tour) error {
	for _, args := range [][]string{{"disk", "delete", linked, "--yes"}, {"disk", "delete", restored, "--yes"}, {"snapshot", "delete", moment, "--yes"}, {"backup", "delete", kept, "--yes"}} {
		if err := t.do(ctx, args...); err != nil {
			return err
		}
	}
	before, err := ask[control.Disk](ctx, t, "disk", "show", vault)
	if err != nil {
		return err
	}
	after, err := ask[control.Disk](ctx, t, "disk", "rekey", vault)
	if err != nil {
		return err
	}
	t.files = segments(after)
	there := slices.DeleteFunc(segments(before), missing)
	return t.tell.all(
		check{len(after.Layers) == 1 && after.Layers[0].ID != before.Layers[0].ID && after.Status == "in-use", "all of it is encrypted anew, and it stayed attached", after.Layers},
		check{len(there) == 0, "what was under the old data key is gone, and that key with it", there})
}
