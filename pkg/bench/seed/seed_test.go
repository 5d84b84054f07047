package seed_test

import (
	"log/slog"
	"path/filepath"
	"testing"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/bench/seed"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/clock"
	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/volume"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open opens a store, and makes it where there is none.
func open(t *testing.T, state, rootKey string) (keys *keystore.Store, sealed catalog.Store, end func()) {
	t.Helper()
	root, err := keystore.OpenRoot(rootKey, state)
	must(t, err)
	raw, err := catalog.Open(filepath.Join(state, keystore.CatalogDir), catalog.Options{Create: root.First, Check: keystore.CheckSealed(root)})
	must(t, err)
	sealed = keystore.Seal(raw, root)
	keys, err = keystore.Open(t.Context(), keystore.Config{Catalog: sealed, Root: root, Region: "local", Clock: clock.System{}})
	must(t, err)
	return keys, sealed, func() {
		must(t, keys.Close())
		must(t, raw.Close())
		root.Close()
	}
}

// TestFilledStore: what is filled in opens as what users made, all of it.
func TestFilledStore(t *testing.T) {
	state, rootKey := t.TempDir(), filepath.Join(t.TempDir(), "root.key")
	keys, _, end := open(t, state, rootKey)
	_, _, err := keys.Grant(t.Context(), "grant", "default", "root")
	must(t, err)
	end()
	must(t, seed.Fill(t.Context(), seed.Options{State: state, RootKey: rootKey, Region: "local", Projects: 2, Keys: 3, Disks: 60, Few: 2, FewKey: "few", Size: 1 << 20}))
	keys, sealed, end := open(t, state, rootKey)
	defer end()
	n, err := keys.Verify(t.Context(), func(p keystore.Problem) { t.Errorf("%+v", p) })
	if err != nil || n != 1+1+2*3 {
		t.Errorf("there are %d keys, %v", n, err)
	}
	many, err := keys.Uses(t.Context(), "default", "")
	must(t, err)
	few, err := keys.Uses(t.Context(), "default", "few")
	must(t, err)
	if len(many) != 60 || len(few) != 2 {
		t.Errorf("%d and %d disks are under the keys", len(many), len(few))
	}
	files, err := pool.OpenFiles(filepath.Join(t.TempDir(), "pool"))
	must(t, err)
	disks, err := volume.Open(t.Context(), volume.Config{Catalog: sealed, Keys: keys, Pool: files, Clock: clock.System{}, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	defer disks.Close()
	names := map[string]bool{}
	must(t, disks.List(t.Context(), "default", true, func(d volume.Disk) error {
		if d.Status != volume.Available || d.Key.State != keystore.Enabled || len(d.Layers) != 1 {
			t.Errorf("%+v", d)
		}
		names[d.Name] = true
		return nil
	}))
	if len(names) != 62 {
		t.Errorf("%d disks have names of their own", len(names))
	}
}
