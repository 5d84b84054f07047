// Package catalogtest shows that a catalog.Store keeps its promises: one suite for every implementation and
// every layer over one, and decorators that do on purpose what a store may do at worst.
package catalogtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"nbdcrypt/pkg/catalog"
)

// Open opens the store under test: the first call for a test an empty one, the next ones the same store again.
type Open func() catalog.Store

// Suite is what is put under test.
type Suite struct {
	// Open gets the test whose store it opens.
	Open func(t *testing.T) Open
	// Durable tells that a store which was closed can be opened again.
	Durable bool
	// MaxValue is the longest value that the store takes: catalog.MaxValue, less what a layer over a store adds.
	MaxValue int
}

// RunStore runs the suite.
func RunStore(t *testing.T, suite Suite) {
	testLimits := func(t *testing.T, open Open) { testLimits(t, open, suite.MaxValue) }
	testLargestUpdate := func(t *testing.T, open Open) { testLargestUpdate(t, open, suite.MaxValue) }
	testExportImport := func(t *testing.T, open Open) { testExportImport(t, open, suite.MaxValue) }
	tests := map[string]func(*testing.T, Open){
		"RoundTrip": testRoundTrip, "AbsentIsNotEmpty": testAbsentIsNotEmpty, "Limits": testLimits,
		"LargestUpdate": testLargestUpdate, "Scan": testScan, "ScanInTxn": testScanInTxn, "OwnWrites": testOwnWrites,
		"Rollback": testRollback, "Aliasing": testAliasing, "ViewIsOneRevision": testViewIsOneRevision,
		"Serializable": testSerializable, "Outcome": testOutcome, "Revision": testRevision, "Watch": testWatch,
		"WatchLost": testWatchLost, "ExportImport": testExportImport, "DamagedStream": testDamagedStream,
		"Closed": testClosed, "Cancelled": testCancelled, "RerunSafe": testRerunSafe, "UnknownOutcome": testUnknownOutcome,
	}
	if suite.Durable {
		tests["Reopen"] = testReopen
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { test(t, suite.Open(t)) })
	}
}

// opened opens a store and closes it with the test.
func opened(t *testing.T, open Open) catalog.Store {
	t.Helper()
	s := open()
	t.Cleanup(func() { _ = s.Close() })
	return s
}

var requests int

func put(t *testing.T, s catalog.Store, pairs ...string) {
	t.Helper()
	requests++
	must(t, s.Update(t.Context(), fmt.Sprint("put-", requests), func(txn catalog.Txn) error {
		for i := 0; i < len(pairs); i += 2 {
			if err := txn.Put(pairs[i], []byte(pairs[i+1])); err != nil {
				return err
			}
		}
		return nil
	}))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, want %v", err, want)
	}
}

// dump writes what a store holds as one line.
func dump(t *testing.T, s catalog.Store) string {
	t.Helper()
	var b strings.Builder
	must(t, s.View(t.Context(), func(r catalog.Reader) error {
		pairs, err := r.Scan("", "", 1000)
		for _, p := range pairs {
			fmt.Fprintf(&b, "%s=%s ", p.Key, p.Value)
		}
		return err
	}))
	return strings.TrimSpace(b.String())
}

func wantDump(t *testing.T, s catalog.Store, want string) {
	t.Helper()
	if got := dump(t, s); got != want {
		t.Fatalf("the store holds %q, want %q", got, want)
	}
}

func testRoundTrip(t *testing.T, open Open) {
	s := opened(t, open)
	wantDump(t, s, "")
	put(t, s, "a", "1", "b/c", "2", "ü €", "3")
	wantDump(t, s, "a=1 b/c=2 ü €=3")
	put(t, s, "a", "4")
	must(t, s.Update(t.Context(), "del", func(txn catalog.Txn) error {
		return errors.Join(txn.Delete("b/c"), txn.Delete("never there"))
	}))
	wantDump(t, s, "a=4 ü €=3")
}

func testAbsentIsNotEmpty(t *testing.T, open Open) {
	s := opened(t, open)
	check := func(r catalog.Reader) error {
		v, err := r.Get("empty")
		if err != nil || v == nil || len(v) != 0 {
			t.Errorf("an empty value reads as %v, %v", v, err)
		}
		_, err = r.Get("absent")
		wantErr(t, err, catalog.ErrNotFound)
		return nil
	}
	must(t, s.Update(t.Context(), "r", func(txn catalog.Txn) error {
		if err := txn.Put("empty", nil); err != nil {
			return err
		}
		return check(txn)
	}))
	must(t, s.View(t.Context(), check))
	wantDump(t, s, "empty=")
}

func testLimits(t *testing.T, open Open, maxValue int) {
	s := opened(t, open)
	n := 0
	update := func(fn func(catalog.Txn) error) error {
		n++
		return s.Update(t.Context(), fmt.Sprint("limit-", n), fn)
	}
	one := func(key string, size int) func(catalog.Txn) error {
		return func(txn catalog.Txn) error { return txn.Put(key, make([]byte, size)) }
	}
	longest := strings.Repeat("k", catalog.MaxKey)
	must(t, update(one(longest, 1)))
	wantErr(t, update(one(longest+"k", 1)), catalog.ErrTooLarge)
	must(t, update(one("v", maxValue)))
	wantErr(t, update(one("v", maxValue+1)), catalog.ErrTooLarge)
	if update(one("", 1)) == nil || update(one("\x00meta", 1)) == nil {
		t.Error("an empty key, or one of the store's own, is taken")
	}
	ops := func(count int) func(catalog.Txn) error {
		return func(txn catalog.Txn) error {
			for i := range count {
				// Whoever overlooks the error must not commit half of it.
				_ = txn.Put(fmt.Sprintf("op%03d", i), []byte("x"))
			}
			return nil
		}
	}
	must(t, update(ops(catalog.MaxOps)))
	before := dump(t, s)
	wantErr(t, update(ops(catalog.MaxOps+1)), catalog.ErrTooLarge)
	wantDump(t, s, before)
}

// testLargestUpdate fills every limit at once, and the sizes around those where a store may change its ways.
func testLargestUpdate(t *testing.T, open Open, maxValue int) {
	s := opened(t, open)
	for _, size := range []int{4000, 4095, 4096, 4097, 8 << 10, maxValue} {
		key := func(i int) string { return fmt.Sprintf("%0*d", catalog.MaxKey, i) }
		must(t, s.Update(t.Context(), fmt.Sprint("large-", size), func(txn catalog.Txn) error {
			for i := range catalog.MaxOps {
				if err := txn.Put(key(i), bytes.Repeat([]byte{byte(i)}, size)); err != nil {
					return err
				}
			}
			return nil
		}))
		must(t, s.View(t.Context(), func(r catalog.Reader) error {
			for i := range catalog.MaxOps {
				v, err := r.Get(key(i))
				if err != nil || !bytes.Equal(v, bytes.Repeat([]byte{byte(i)}, size)) {
					t.Fatalf("size %d, record %d: %d bytes, %v", size, i, len(v), err)
				}
			}
			return nil
		}))
	}
}

func keysOf(pairs []catalog.Pair) string {
	var keys []string
	for _, p := range pairs {
		keys = append(keys, p.Key)
	}
	return strings.Join(keys, " ")
}

type scanCase struct {
	prefix, after string
	limit         int
	want          string
}

var scanCases = []scanCase{
	{"", "", 100, "a b/1 b/2 b/20 b/3 b0 c"},
	{"b/", "", 100, "b/1 b/2 b/20 b/3"},
	{"b/", "", 2, "b/1 b/2"},
	{"b/", "b/2", 2, "b/20 b/3"},
	{"b/", "b/3", 2, ""},
	{"b/", "a", 1, "b/1"},
	{"b/", "c", 100, ""},
	{"b/", "b/15", 1, "b/2"},
	{"b", "b/3", 100, "b0"},
	{"zz", "", 100, ""},
	{"", "", 0, ""},
	{"\x00", "", 100, ""},
}

func checkScans(t *testing.T, r catalog.Reader) {
	t.Helper()
	for _, c := range scanCases {
		pairs, err := r.Scan(c.prefix, c.after, c.limit)
		must(t, err)
		if got := keysOf(pairs); got != c.want {
			t.Errorf("Scan(%q, %q, %d) = %q, want %q", c.prefix, c.after, c.limit, got, c.want)
		}
	}
}

func testScan(t *testing.T, open Open) {
	s := opened(t, open)
	put(t, s, "c", "1", "b/3", "1", "b/20", "1", "b/1", "1", "a", "1", "b0", "1", "b/2", "1")
	must(t, s.View(t.Context(), func(r catalog.Reader) error {
		checkScans(t, r)
		return nil
	}))
}

// testScanInTxn has half of the pairs in the store and half in the transaction, with some removed and replaced.
func testScanInTxn(t *testing.T, open Open) {
	s := opened(t, open)
	put(t, s, "a", "1", "b/1", "1", "b/11", "1", "b/3", "1", "b/9", "1", "b0", "1")
	must(t, s.Update(t.Context(), "scan", func(txn catalog.Txn) error {
		for _, k := range []string{"b/2", "b/20", "c", "b/1"} {
			must(t, txn.Put(k, []byte("2")))
		}
		must(t, txn.Delete("b/11"))
		must(t, txn.Delete("b/9"))
		checkScans(t, txn)
		return nil
	}))
	must(t, s.View(t.Context(), func(r catalog.Reader) error {
		checkScans(t, r)
		return nil
	}))
}

func testOwnWrites(t *testing.T, open Open) {
	s := opened(t, open)
	put(t, s, "old", "1")
	must(t, s.Update(t.Context(), "own", func(txn catalog.Txn) error {
		must(t, txn.Put("new", []byte("2")))
		must(t, txn.Delete("old"))
		if v, err := txn.Get("new"); err != nil || string(v) != "2" {
			t.Errorf("own write reads as %q, %v", v, err)
		}
		_, err := txn.Get("old")
		wantErr(t, err, catalog.ErrNotFound)
		return txn.Put("old", []byte("3"))
	}))
	wantDump(t, s, "new=2 old=3")
}

func testRollback(t *testing.T, open Open) {
	s := opened(t, open)
	put(t, s, "a", "1")
	revision, err := s.Revision(t.Context())
	must(t, err)
	broken := errors.New("no")
	wantErr(t, s.Update(t.Context(), "rolled back", func(txn catalog.Txn) error {
		return errors.Join(txn.Put("b", nil), txn.Delete("a"), broken)
	}), broken)
	wantDump(t, s, "a=1")
	if now, err := s.Revision(t.Context()); err != nil || now != revision {
		t.Errorf("revision went from %d to %d, %v", revision, now, err)
	}
	if found, err := s.Outcome(t.Context(), "rolled back"); err != nil || found {
		t.Errorf("outcome is %v, %v", found, err)
	}
}

func testAliasing(t *testing.T, open Open) {
	s := opened(t, open)
	v := []byte("value")
	must(t, s.Update(t.Context(), "alias", func(txn catalog.Txn) error {
		must(t, txn.Put("k", v))
		v[0] = 'X'
		got, err := txn.Get("k")
		must(t, err)
		got[1] = 'X'
		return nil
	}))
	for range 2 {
		must(t, s.View(t.Context(), func(r catalog.Reader) error {
			got, err := r.Get("k")
			if err != nil || string(got) != "value" {
				t.Errorf("reads as %q, %v", got, err)
			}
			got[2] = 'X'
			pairs, err := r.Scan("", "", 1)
			if err != nil || string(pairs[0].Value) != "value" {
				t.Errorf("scans as %q, %v", pairs, err)
			}
			pairs[0].Value[2] = 'X'
			return nil
		}))
	}
}

func testCancelled(t *testing.T, open Open) {
	s := opened(t, open)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantErr(t, s.View(ctx, func(catalog.Reader) error { t.Error("ran"); return nil }), context.Canceled)
	wantErr(t, s.Update(ctx, "c", func(catalog.Txn) error { t.Error("ran"); return nil }), context.Canceled)
	if s.Update(t.Context(), "", func(catalog.Txn) error { return nil }) == nil {
		t.Error("an update without a request id is taken")
	}
}
