package keystore_test

import (
	"path/filepath"
	"testing"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/catalog/catalogtest"
	"nbdcrypt/pkg/secret"
)

func randomKey(t testing.TB) *secret.Key {
	t.Helper()
	k, err := secret.RandomWork(32, secret.Purpose{Kind: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Destroy)
	return k
}

func TestSealedStore(t *testing.T) {
	catalogtest.RunStore(t, catalogtest.Suite{Durable: true, MaxValue: keystore.MaxSealed, Open: func(t *testing.T) catalogtest.Open {
		dir, root := filepath.Join(t.TempDir(), "catalog"), keystore.OpenedRoot(randomKey(t), uuid.New())
		return func() catalog.Store {
			s, err := catalog.Open(dir, catalog.Options{Create: true, Check: keystore.CheckSealed(root)})
			if err != nil {
				t.Fatal(err)
			}
			return keystore.Seal(s, root)
		}
	}})
}
