package catalog_test

import (
	"testing"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/catalog/catalogtest"
)

// Commit finds out what became of a commit that ended without an answer, and neither loses it nor does it twice.
func TestCommitFindsOut(t *testing.T) {
	for _, commits := range []bool{true, false} {
		s := catalogtest.NewUnknown(catalog.Memory())
		s.Inject(commits)
		runs := 0
		err := catalog.Commit(t.Context(), s, "request", func(txn catalog.Txn) error {
			runs++
			return txn.Put("key", []byte("value"))
		})
		revision, _ := s.Revision(t.Context())
		if err != nil || revision != 1 || (runs == 1) != commits {
			t.Errorf("committed=%v: %v, revision %d, ran %d times", commits, err, revision, runs)
		}
	}
}
