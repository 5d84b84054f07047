package volume_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// checks looks at everything, and tells what was found, severity and all.
func (r *rig) checks() (c volume.Checked, found []string) {
	r.t.Helper()
	c, err := r.Check(r.t.Context(), "", "", func(p volume.Problem) {
		found = append(found, p.Severity+" | "+p.What+" | "+p.Where+" | "+p.Problem+" | "+p.Next)
		if p.Next == "" {
			r.t.Errorf("nothing is said to do about %+v", p)
		}
	}, func(done, total int64) {
		if done > total {
			r.t.Errorf("%d of %d are done", done, total)
		}
	})
	must(r.t, err)
	return c, found
}

// puts writes what a record shall hold; nil deletes it.
func (r *rig) puts(key string, value []byte) {
	r.t.Helper()
	must(r.t, r.Catalog.Update(r.t.Context(), "put "+uuid.NewString(), func(t catalog.Txn) error {
		if value == nil {
			return t.Delete(key)
		}
		return t.Put(key, value)
	}))
}

// names are the records under a prefix.
func (r *rig) names(prefix string) (list []string) {
	r.t.Helper()
	must(r.t, r.Catalog.View(r.t.Context(), func(c catalog.Reader) error {
		return catalog.EachName(c, prefix, func(key string) error { list = append(list, key); return nil })
	}))
	return list
}

func (r *rig) valueOf(key string) (value []byte) {
	r.t.Helper()
	must(r.t, r.Catalog.View(r.t.Context(), func(c catalog.Reader) (err error) {
		value, err = c.Get(key)
		return err
	}))
	return value
}

// TestCheckOfEverything: a store with something of each kind has no findings; what is broken then is found, called by its name, and is fine
// again once it is put back.
func TestCheckOfEverything(t *testing.T) {
	r := newRig(t)
	r.key("a")
	r.holdersOf("a")
	whole := volume.Checked{Disks: 2, Open: 2, Points: 3, PointsOpen: 3}
	c, found := r.checks()
	if whole.Blocks = c.Blocks; c != whole || len(found) != 0 || c.Blocks != 16 {
		t.Fatalf("before anything is broken: %+v, %q", c, found)
	}
	vault, err := r.Get(t.Context(), "default", "vault")
	must(t, err)
	bottom := vault.Layers[len(vault.Layers)-1]
	snapshot, err := r.Point(t.Context(), volume.SnapshotKind, "default", "snapshot")
	must(t, err)
	backup := filepath.Join(r.dir+"-backups", r.names("backup/")[0][len("backup/"):]+".nbdbackup")
	ref := "ref/" + bottom.ID + "/snapshot/" + snapshot.ID
	stray := uuid.NewString()
	for _, broken := range []struct {
		what         string
		do, undo     func()
		want         string
		disks, point int // that open
	}{
		{"a file that many share", func() { must(t, os.Rename(bottom.Segments[0], bottom.Segments[0]+".gone")) },
			func() { must(t, os.Rename(bottom.Segments[0]+".gone", bottom.Segments[0])) }, "damage | disk default/", 0, 1},
		{"a reference", func() { r.puts(ref, nil) }, func() { r.puts(ref, []byte{}) }, "damage | layer | " + ref, 2, 3},
		{"a reference too many", func() { r.puts("ref/"+bottom.ID+"/image/"+stray, []byte{}) }, func() { r.puts("ref/"+bottom.ID+"/image/"+stray, nil) }, "note | layer | ref/", 2, 3},
		{"a layer for nobody", func() {
			r.puts("layer/"+stray, []byte(strings.Replace(string(r.valueOf("layer/"+bottom.ID)), bottom.ID, stray, 1)))
		}, func() { r.puts("layer/"+stray, nil) }, "note | layer | layer/" + stray, 2, 3},
		{"a snapshot's record", func() { r.puts("snapshot/"+snapshot.ID, []byte("{}")) }, nil, "damage | snapshot " + snapshot.ID + " | catalog", 2, 2},
		{"a snapshot's name", func() { r.puts("snapshot-name/default/snapshot", nil) }, func() { r.puts("snapshot-name/default/snapshot", []byte(snapshot.ID)) },
			"damage | snapshot name | snapshot-name/default/snapshot", 2, 3},
		{"a snapshot's DEK", func() { r.puts("dek/snapshot/"+snapshot.ID+"/"+bottom.ID, nil) }, nil, "damage | snapshot default/snapshot | layer " + bottom.ID, 2, 2},
		{"a DEK too many", func() {
			rec, err := r.keys.GenerateDEK(t.Context(), "default", "a", keystore.Holder{Kind: volume.HolderKind, ID: vault.ID}, stray, 512)
			must(t, err)
			must(t, r.catalog.Update(t.Context(), "stray key", func(t catalog.Txn) error { return keystore.PutDEK(t, rec) }))
		}, func() {
			must(t, r.catalog.Update(t.Context(), "no stray key", func(t catalog.Txn) error {
				return keystore.DropDEKs(t, keystore.Holder{Kind: volume.HolderKind, ID: vault.ID}, stray)
			}))
		}, "note | disk default/vault | layer " + stray, 2, 3},
		{"a backup's file", func() { must(t, os.Rename(backup, backup+".gone")) }, func() { must(t, os.Rename(backup+".gone", backup)) }, "damage | backup default/backup | " + backup, 2, 2},
		{"a backup's length", func() { must(t, os.Truncate(backup, 1000)) }, nil, "damage | backup default/backup | " + backup, 2, 2},
		{"a file of no backup", func() { must(t, os.WriteFile(filepath.Join(filepath.Dir(backup), stray+".nbdbackup"), nil, 0o600)) },
			func() { must(t, os.Remove(filepath.Join(filepath.Dir(backup), stray+".nbdbackup"))) }, "note | backup | ", 2, 3},
		{"a layer that goes before anything stood on what is below it", func() {
			r.puts("layer/"+stray, []byte(strings.Replace(string(r.valueOf("layer/"+vault.Layers[0].ID)), vault.Layers[0].ID, stray, 1)))
			r.puts("doomed/"+stray, []byte{})
		}, func() { r.puts("layer/"+stray, nil); r.puts("doomed/"+stray, nil) }, "note | layer | " + stray, 2, 3},
		{"a removal that did not end", func() { r.puts("doomed/"+stray, []byte{}) }, func() { r.puts("doomed/"+stray, nil) }, "note | layer | " + stray, 2, 3},
	} {
		was := map[string][]byte{}
		for _, prefix := range []string{"snapshot/", "dek/", "uses/"} {
			for _, key := range r.names(prefix) {
				was[key] = r.valueOf(key)
			}
		}
		file, err := os.ReadFile(backup)
		must(t, err)
		broken.do()
		c, found := r.checks()
		if !slices.ContainsFunc(found, func(f string) bool { return strings.HasPrefix(f, broken.want) }) || c.Open != broken.disks || c.PointsOpen != broken.point {
			t.Errorf("%s: %+v, %q", broken.what, c, found)
		}
		if strings.HasPrefix(broken.want, "note") && slices.ContainsFunc(found, func(f string) bool { return strings.HasPrefix(f, "damage") }) {
			t.Errorf("%s is called damage: %q", broken.what, found)
		}
		if broken.undo == nil {
			broken.undo = func() {
				for key, value := range was {
					r.puts(key, value)
				}
				must(t, os.WriteFile(backup, file, 0o600))
			}
		}
		broken.undo()
		if c, found := r.checks(); c != whole || len(found) != 0 {
			t.Fatalf("%s, put back: %+v, %q", broken.what, c, found)
		}
	}
}

// No record that is damaged keeps the daemon from starting; each is told by then, or by a check.
func TestDamagedRecordsDontKeepFromStarting(t *testing.T) {
	r := newRig(t)
	r.key("a")
	r.holdersOf("a")
	layer := strings.TrimPrefix(r.names("layer/")[0], "layer/")
	id := uuid.NewString()
	for _, key := range []string{"snapshot/" + id, "image/" + id, "backup/" + id, "layer/" + id, "disk/" + id, "merge/" + id, "merge/no-id", "doomed/no-id",
		"making/no-id", "making/" + id, "ref/" + layer + "/snapshot/no-id", "ref/no-id/snapshot/" + id, "trim-deks/snapshot/no-id",
		"trim-deks/nothing", "attachment/" + id, "snapshot-name/default/x", "layer/" + layer} {
		t.Run(key, func(t *testing.T) {
			there := slices.Contains(r.names(key), key)
			var was []byte
			if there {
				was = r.valueOf(key)
			}
			r.puts(key, []byte(`{"v":7}`))
			r.restart()
			_, _, err := r.LeftAttached(t.Context())
			must(t, err)
			_, found := r.checks()
			if len(found)+len(r.Unreadable()) == 0 {
				t.Errorf("nobody tells of it")
			}
			if !there {
				was = nil
			}
			r.puts(key, was)
			r.Service.Close()
		})
	}
}

// A disk that could not be made, nor be taken back, is no damage: it says how it ends.
func TestCheckOfAHalfMadeDisk(t *testing.T) {
	r := newRig(t)
	whole, commits := r.Service.Catalog, 0
	r.Service.Catalog = &beforeUpdate{whole, func() error {
		if commits++; commits > 1 {
			return syscall.ENOSPC
		}
		return nil
	}}
	if _, err := r.Create(t.Context(), "create", secretDisk); err == nil {
		t.Fatal("it was made on a full file system")
	}
	r.Service.Catalog = whole
	c, found := r.checks()
	if len(found) != 1 || !strings.HasPrefix(found[0], "note | disk default/vault") || c.Open != 0 {
		t.Errorf("%+v, %q", c, found)
	}
	must(t, r.Delete(t.Context(), "delete", "default", "vault"))
	if c, found := r.checks(); c.Disks != 0 || len(found) != 0 {
		t.Errorf("after its end: %+v, %q", c, found)
	}
}

// A disk whose data had to go first, and whose record did not go then, says so; deleting it again ends it.
func TestDeleteWhereTheCatalogStaysFull(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	whole := r.Service.Catalog
	r.Service.Catalog = crampedCatalog{whole, func() bool { return true }}
	err := r.Delete(t.Context(), "delete", "default", "vault")
	if refusal.CodeOf(err) != refusal.Failed || !strings.Contains(err.Error(), "the data of disk vault is gone") {
		t.Errorf("%v", err)
	}
	r.Service.Catalog = whole
	must(t, r.Delete(t.Context(), "delete", "default", "vault"))
	if len(r.files()) != 0 || r.records("disk/")+r.records("layer/")+r.records("dek/") != 0 {
		t.Error("something is left")
	}
}
