package backup

import (
	"bytes"
	"slices"
	"testing"
)

// A page is more than a GiB: within one, too, whoever waits is told how far it is, and never of less than before.
func TestProgressWithinAPage(t *testing.T) {
	var told []int64
	tell := func(data int64) { told = append(told, data) }
	check := func(what string) {
		t.Helper()
		if len(told) < 5 || !slices.IsSorted(told) || told[len(told)-1] != 5*mib+BlockSize {
			t.Errorf("%s: %v", what, told)
		}
		told = nil
	}
	extent := Extent{0, 5*mib/BlockSize + 1, false}
	m := makeBackup(t, header(8*mib), extent)
	w := NewWriter(t.Context(), new(sink), header(8*mib), fillByBlock, tell)
	defer w.Close()
	if err := w.Add(extent); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	check("writing")
	if err := Restore(t.Context(), bytes.NewReader(m.bytes), m.Verified, func([]byte, int64) error { return nil }, func(int64, int64) error { return nil }, tell); err != nil {
		t.Fatal(err)
	}
	check("restoring")
}
