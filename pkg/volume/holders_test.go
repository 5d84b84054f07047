package volume_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// holdersOf makes a thing of every kind that is under a key, called by its kind, and a linked disk. It tells what they all hold.
func (r *rig) holdersOf(key string) (data []byte) {
	r.t.Helper()
	s := secretDisk
	s.Key = key
	r.create(s)
	data = bytes.Repeat([]byte("known plaintext "), 4096)
	r.with("vault", func(a *volume.Attachment) { write(r.t, a, data, 0) })
	r.snap("vault", "snapshot")
	_, err := r.CreateImage(r.t.Context(), "image", imageOf("vault", "image"))
	must(r.t, err)
	r.backup("vault", "backup")
	r.linked("snapshot", "linked")
	return data
}

// uses are what a key is used by, as its kind and name, with the names that are looked up.
func (r *rig) uses(key string) (list []string) {
	r.t.Helper()
	holders, err := r.keys.Uses(r.t.Context(), "default", key)
	must(r.t, err)
	for _, h := range holders {
		named, err := r.Named(r.t.Context(), h.Kind, []string{h.ID})
		must(r.t, err)
		for _, n := range named {
			list = append(list, h.Kind+" "+n.Name)
		}
	}
	slices.Sort(list)
	return list
}

var allKinds = []string{"backup backup", "disk linked", "disk vault", "image image", "snapshot snapshot"}

// rewrapAll puts all that is under a key under another.
func (r *rig) rewrapAll(from, to string) error {
	holders, err := r.keys.Uses(r.t.Context(), "default", from)
	for _, h := range holders {
		request := "rewrap " + h.Kind + h.ID[:8] + to
		if err == nil && h.Kind == volume.HolderKind {
			_, _, err = r.Rewrap(r.t.Context(), request, "default", h.ID, "", to)
		} else if err == nil {
			_, err = r.RewrapPoint(r.t.Context(), request, "default", h.Kind, h.ID, "", to)
		}
	}
	return err
}

// TestRuleC7_C5_AllKindsAreListedAndMoved: what uses a key names disks, snapshots, images and backups; all of them can be put under
// another key, after which nothing needs the first, and no byte in the pool or of a backup has changed.
func TestRuleC7_C5_AllKindsAreListedAndMoved(t *testing.T) {
	r := newRig(t)
	r.key("a")
	r.key("b")
	data := r.holdersOf("a")
	if got := r.uses("a"); !slices.Equal(got, allKinds) {
		t.Errorf("under a: %v", got)
	}
	before := r.poolBytes()
	must(t, r.rewrapAll("a", "b"))
	if !bytes.Equal(r.poolBytes(), before) {
		t.Error("ciphertext has changed")
	}
	if got := r.uses("a"); len(got) != 0 {
		t.Errorf("still under a: %v", got)
	}
	if got := r.uses("b"); !slices.Equal(got, allKinds) {
		t.Errorf("under b: %v", got)
	}
	_, err := r.keys.Disable(t.Context(), "off", "default", "a")
	must(t, err)
	r.restart()
	r.linked("snapshot", "again")
	r.create(volume.Spec{Project: "default", Name: "of-image", From: &volume.From{Kind: volume.ImageKind, Ref: "image"}})
	_, err = r.restore("backup", volume.Spec{Name: "restored"})
	must(t, err)
	for _, disk := range []string{"vault", "linked", "again", "of-image", "restored"} {
		if got := r.content(disk); !bytes.HasPrefix(got, data) {
			t.Errorf("%s holds %.20q", disk, got)
		}
	}
	for kind, key := range map[string]string{volume.SnapshotKind: "snapshot", volume.ImageKind: "image", volume.BackupKind: "backup"} {
		if p, err := r.Point(t.Context(), kind, "default", key); err != nil || p.Key == nil || p.Key.Alias != "b" {
			t.Errorf("%s: %+v, %v", kind, p.Key, err)
		}
	}
}

// poolBytes is all that the pool holds.
func (r *rig) poolBytes() (all []byte) {
	for _, path := range r.files() {
		b, err := os.ReadFile(path)
		must(r.t, err)
		all = append(all, b...)
	}
	return all
}

// Rule C5: things with more layers than a commit has room for are moved in several. Cut off between two of them, or with a new layer
// that came meanwhile, all opens as before, and the same command does the rest.
func TestRuleC5_ManyLayersAreMovedInParts(t *testing.T) {
	r := newRig(t)
	r.key("a")
	r.key("b")
	s := secretDisk
	s.Key, s.Size = "a", mib
	r.create(s)
	for i := range 31 {
		r.with("vault", func(a *volume.Attachment) { r.writes(a, byte('a'+i), int64(i)*4096, 4096) })
		_, err := r.CreateImage(t.Context(), fmt.Sprint("image", i), imageOf("vault", fmt.Sprint("i", i)))
		must(t, err)
	}
	want := r.content("vault")
	whole := r.Service.Catalog
	cut := errors.New("cut off")
	for n := 1; ; n++ {
		left := n
		r.Service.Catalog = &beforeUpdate{whole, func() error {
			if left--; left < 0 {
				return cut
			}
			return nil
		}}
		_, changed, err := r.Rewrap(t.Context(), fmt.Sprint("rewrap", n), "default", "vault", "", "b")
		r.Service.Catalog = whole
		if got := r.content("vault"); !bytes.Equal(got, want) {
			t.Fatalf("cut off after %d commits it reads otherwise", n)
		}
		if err == nil {
			if !changed || n < 2 {
				t.Errorf("it took %d commits", n)
			}
			break
		}
		if !errors.Is(err, cut) || n > 5 {
			t.Fatal(err)
		}
		if d, err := r.Get(t.Context(), "default", "vault"); err != nil || d.Key.Alias != "a" {
			t.Errorf("half-way its key is %+v, %v", d.Key, err)
		}
	}
	if got := r.uses("a"); slices.Contains(got, "disk vault") {
		t.Errorf("still under a: %v", got)
	}
}

// A disk that gets another layer while it is re-wrapped is not left with one under the old key.
func TestRuleC5_LayerThatComesMeanwhile(t *testing.T) {
	r := newRig(t)
	r.key("a")
	r.create(secretDisk)
	whole := r.Service.Catalog
	once := true
	r.Service.Catalog = &beforeUpdate{whole, func() error {
		if once {
			once = false
			must(t, keystoreRecord(t, r, whole))
		}
		return nil
	}}
	_, _, err := r.Rewrap(t.Context(), "r", "default", "vault", "", "a")
	r.Service.Catalog = whole
	wantCode(t, err, refusal.Busy)
	if d, err := r.Get(t.Context(), "default", "vault"); err != nil || d.Key.Alias != "evs/default" {
		t.Errorf("its key is %+v, %v", d.Key, err)
	}
}

// keystoreRecord gives the disk vault a DEK of one layer more.
func keystoreRecord(t *testing.T, r *rig, c catalog.Store) error {
	d, err := r.Get(t.Context(), "default", "vault")
	must(t, err)
	rec, err := r.keys.GenerateDEK(t.Context(), "default", "", keystore.Holder{Kind: volume.HolderKind, ID: d.ID}, strings.Repeat("0", 36), 512)
	must(t, err)
	return c.Update(context.Background(), "another layer", func(t catalog.Txn) error { return keystore.PutDEK(t, rec) })
}

// Rule C5: a deleted snapshot whose space is not given back yet does not hold a key back either.
func TestRuleC5_MergesMove(t *testing.T) {
	r := newRig(t)
	r.key("a")
	r.key("b")
	id := strings.Repeat("0", 35) + "1"
	rec, err := r.keys.GenerateDEK(t.Context(), "default", "a", keystore.Holder{Kind: volume.MergeKind, ID: id}, id, 512)
	must(t, err)
	must(t, r.catalog.Update(t.Context(), "merge", func(t catalog.Txn) error { return keystore.PutDEK(t, rec) }))
	a, err := r.keys.Key(t.Context(), "default", "a")
	must(t, err)
	changed, err := r.RewrapPoint(t.Context(), "m", "default", volume.MergeKind, id, a.ID, "b")
	if err != nil || !changed {
		t.Errorf("%v, %v", changed, err)
	}
	for key, want := range map[string]int{"a": 0, "b": 1} {
		if holders, err := r.keys.Uses(t.Context(), "default", key); err != nil || len(holders) != want {
			t.Errorf("under %s: %v, %v", key, holders, err)
		}
	}
}
