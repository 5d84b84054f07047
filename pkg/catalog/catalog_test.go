package catalog_test

import (
	"path/filepath"
	"testing"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/catalog/catalogtest"
)

func TestMemory(t *testing.T) {
	catalogtest.RunStore(t, catalogtest.Suite{MaxValue: catalog.MaxValue, Open: func(*testing.T) catalogtest.Open { return catalog.Memory }})
}

func openAt(t *testing.T, dir string, least uint64) catalog.Store {
	t.Helper()
	s, err := catalog.Open(dir, catalog.Options{MinRevision: least, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestBadger(t *testing.T) {
	catalogtest.RunStore(t, catalogtest.Suite{Durable: true, MaxValue: catalog.MaxValue, Open: func(t *testing.T) catalogtest.Open {
		dir := filepath.Join(t.TempDir(), "catalog")
		return func() catalog.Store { return openAt(t, dir, 0) }
	}})
}
