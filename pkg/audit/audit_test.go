package audit_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/pkg/audit"
	"nbdcrypt/pkg/audit/chain"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/clock"
	"nbdcrypt/pkg/refusal"
)

var store = uuid.MustParse("6f1c0000-1111-4222-8333-444455556666")

func config(path string, create bool) audit.Config {
	return audit.Config{Path: path, Store: store, Clock: clock.NewFake(time.Unix(1e9, 0)), Create: create, MAC: underKey("ours")}
}

// underKey authenticates heads under a key.
func underKey(key string) audit.MAC {
	return func(message []byte) ([]byte, error) {
		h := hmac.New(sha256.New, []byte(key))
		h.Write(message)
		return h.Sum(nil), nil
	}
}

// verify reads a log as somebody who has nothing but the file.
func verify(t *testing.T, path string) (audit.Head, int, error) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	end, err := chain.Verify(t.Context(), f, chain.Genesis(store), chain.NewWitnesses(), func(int64) {})
	return end.Head, len(end.Torn), err
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, path string) *audit.Log {
	t.Helper()
	l, err := audit.Open(t.Context(), config(path, true))
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// written makes a log with n records and returns its path.
func written(t *testing.T, n int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	for i := range n {
		_, err := l.Append(t.Context(), audit.Record{
			Request: fmt.Sprint("r", i), UID: 1000, User: "bob", PID: 7, Verb: "disk.attach", Project: "default",
			Resource: "disk <1> \n é", Outcome: audit.Refused, Code: 4, Message: "key is Disabled", Catalog: uint64(10 + i),
		})
		must(t, err)
	}
	must(t, l.Close())
	return path
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

func TestChainIsContinuedAfterReopening(t *testing.T) {
	path := written(t, 3)
	l := open(t, path)
	if l.Head().Seq != 3 || l.Revision() != 12 {
		t.Errorf("head %+v, revision %d", l.Head(), l.Revision())
	}
	rec, err := l.Append(t.Context(), audit.Record{Verb: "key.create", Outcome: audit.OK, Key: "k/1", Catalog: 5})
	must(t, err)
	if rec.Seq != 4 || rec.Hash != l.Head().Hash || l.Revision() != 12 {
		t.Errorf("record %+v, head %+v, revision %d", rec, l.Head(), l.Revision())
	}
	head, torn, err := verify(t, path)
	if err != nil || torn != 0 || head != l.Head() {
		t.Errorf("Verify: %+v, %d, %v", head, torn, err)
	}
	if bytes.Count(read(t, path), []byte("\n")) != 4 {
		t.Error("a record is not one line")
	}
}

// tampered writes a changed copy of a log and wants it refused with the number of the line.
func tampered(t *testing.T, name string, b []byte, line int) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "audit.log")
		must(t, os.WriteFile(path, b, 0o600))
		_, err := audit.Open(t.Context(), config(path, false))
		r := refusal.From(err)
		if r == nil || r.Code != refusal.Damaged || r.Hint == "" || !strings.Contains(r.Message, fmt.Sprintf("line %d:", line)) {
			t.Errorf("opening gives %v, want damage in line %d", err, line)
		}
		if _, _, err := verify(t, path); refusal.CodeOf(err) != refusal.Damaged {
			t.Errorf("Verify gives %v", err)
		}
		if !bytes.Equal(read(t, path), b) {
			t.Error("a damaged log was changed")
		}
	})
}

func TestRuleC18_TamperingIsFound(t *testing.T) {
	whole := read(t, written(t, 4))
	lines := bytes.SplitAfter(whole, []byte("\n"))[:4]
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	edit := bytes.Replace(lines[1], []byte("bob"), []byte("eve"), 1)
	tampered(t, "edit", join(lines[0], edit, lines[2], lines[3]), 2)
	tampered(t, "edit the last", join(lines[0], lines[1], lines[2], bytes.Replace(lines[3], []byte("bob"), []byte("eve"), 1)), 4)
	tampered(t, "drop the first", join(lines[1:]...), 1)
	tampered(t, "drop one", join(lines[0], lines[2], lines[3]), 2)
	tampered(t, "reorder", join(lines[0], lines[2], lines[1], lines[3]), 2)
	tampered(t, "repeat", join(lines[0], lines[1], lines[1], lines[2]), 3)
	tampered(t, "cut inside a line", join(lines[0], lines[1][:40], lines[2], lines[3]), 2)
	tampered(t, "cut inside a line with its end", join(lines[0], lines[1][:40], []byte("\n"), lines[2]), 2)
	tampered(t, "empty line", join(lines[0], []byte("\n"), lines[1]), 2)
	tampered(t, "long line", join(lines[0], bytes.Repeat([]byte("x"), 1<<20), []byte("\n")), 2)
}

func TestRuleC18_EveryFlippedBitIsFound(t *testing.T) {
	whole := read(t, written(t, 2))
	path := filepath.Join(t.TempDir(), "audit.log")
	for i := range whole[:len(whole)-1] {
		bad := bytes.Clone(whole)
		bad[i] ^= 1
		must(t, os.WriteFile(path, bad, 0o600))
		if _, _, err := verify(t, path); refusal.CodeOf(err) != refusal.Damaged {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
	}
}

func TestRuleC18_OtherStoresLogIsRefused(t *testing.T) {
	c := config(written(t, 1), false)
	c.Store = uuid.New()
	if _, err := audit.Open(t.Context(), c); refusal.CodeOf(err) != refusal.Damaged {
		t.Errorf("opening gives %v", err)
	}
}

func TestMissingLogIsDamage(t *testing.T) {
	_, err := audit.Open(t.Context(), config(filepath.Join(t.TempDir(), "audit.log"), false))
	if refusal.CodeOf(err) != refusal.Damaged {
		t.Errorf("opening gives %v", err)
	}
}

// A last line without its end was never synced: nobody got an answer for it.
func TestUnsyncedLastLineIsMovedAway(t *testing.T) {
	path := written(t, 3)
	whole := read(t, path)
	lines := bytes.SplitAfter(whole, []byte("\n"))
	torn := filepath.Join(filepath.Dir(path), audit.TornFile)
	for cut := 1; cut <= len(lines[2])-1; cut += 37 {
		must(t, os.WriteFile(path, whole[:len(whole)-cut], 0o600))
		must(t, os.RemoveAll(torn))
		must(t, os.Remove(filepath.Join(filepath.Dir(path), audit.HeadFile))) // which was written after the sync
		l := open(t, path)
		if l.Head().Seq != 3 || l.Revision() != 11 {
			t.Fatalf("cut %d: head %+v, revision %d", cut, l.Head(), l.Revision())
		}
		must(t, l.Close())
		if got, want := read(t, torn), append(bytes.Clone(lines[2][:len(lines[2])-cut]), '\n'); !bytes.Equal(got, want) {
			t.Fatalf("cut %d: moved %q, want %q", cut, got, want)
		}
		if now := read(t, path); !bytes.HasPrefix(now, whole[:len(whole)-len(lines[2])]) || !bytes.Contains(now, []byte("audit.torn")) {
			t.Fatalf("cut %d: the log is %q", cut, now)
		}
	}
}

func TestConcurrentAppends(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	var wg sync.WaitGroup
	seen := make([]bool, 8*20+1)
	var mu sync.Mutex
	for range 8 {
		wg.Go(func() {
			for range 20 {
				rec, err := l.Append(t.Context(), audit.Record{Verb: "x", Outcome: audit.OK})
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				seen[rec.Seq] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	head, _, err := verify(t, path)
	if err != nil || head.Seq != 160 || head != l.Head() {
		t.Errorf("head %+v, %v", head, err)
	}
	for seq, ok := range seen[1:] {
		if !ok {
			t.Errorf("no one got record %d", seq+1)
		}
	}
}

func TestRuleC18_CutBelowWhatTheCatalogSaw(t *testing.T) {
	path := written(t, 3)
	whole := read(t, path)
	lines := bytes.SplitAfter(whole, []byte("\n"))
	l := open(t, path)
	s := audit.Witness(catalog.Memory(), l)
	must(t, l.CheckHead(t.Context(), s))
	must(t, s.Update(t.Context(), "u", func(txn catalog.Txn) error { return txn.Put("a", nil) }))
	must(t, l.CheckHead(t.Context(), s))
	must(t, l.Close())
	must(t, os.WriteFile(path, bytes.Join(lines[:2], nil), 0o600))
	must(t, os.Remove(filepath.Join(filepath.Dir(path), audit.HeadFile)))
	l = open(t, path)
	if err := l.CheckHead(t.Context(), s); refusal.CodeOf(err) != refusal.Damaged {
		t.Errorf("a log that was cut gives %v", err)
	}
	// One that was cut and grown again has as many records, and another hash.
	for range 3 {
		_, err := l.Append(t.Context(), audit.Record{Verb: "later"})
		must(t, err)
	}
	if err := l.CheckHead(t.Context(), s); refusal.CodeOf(err) != refusal.Damaged {
		t.Errorf("a log that was cut and grown again gives %v", err)
	}
}

// A commit that is rolled back leaves no head behind, and a head that is damaged is told.
func TestWitnessCommitsWithTheChange(t *testing.T) {
	l := open(t, written(t, 3))
	below := catalog.Memory()
	s := audit.Witness(below, l)
	if s.Update(t.Context(), "no", func(catalog.Txn) error { return os.ErrInvalid }) == nil {
		t.Error("it commits")
	}
	head := func() (b []byte) {
		_ = below.View(t.Context(), func(r catalog.Reader) (err error) {
			b, err = r.Get("audit/head")
			return err
		})
		return b
	}
	if b := head(); b != nil {
		t.Errorf("rolled back, the head is %s", b)
	}
	must(t, s.Update(t.Context(), "yes", func(catalog.Txn) error { return nil }))
	if want := fmt.Sprintf(`{"seq":3,"hash":"%s"}`, l.Head().Hash); string(head()) != want {
		t.Errorf("the head is %s, want %s", head(), want)
	}
	must(t, below.Update(t.Context(), "bad", func(txn catalog.Txn) error { return txn.Put("audit/head", []byte("{")) }))
	if err := l.CheckHead(t.Context(), s); refusal.CodeOf(err) != refusal.Damaged {
		t.Errorf("a damaged head gives %v", err)
	}
}

func TestUnrecordedVerbIsRecorded(t *testing.T) {
	l := open(t, written(t, 3))
	for revision, want := range map[uint64]bool{11: false, 12: false} {
		if got, err := l.Unrecorded(t.Context(), revision); err != nil || got != want {
			t.Errorf("revision %d: %v, %v", revision, got, err)
		}
	}
	if got, err := l.Unrecorded(t.Context(), 13); err != nil || !got || l.Revision() != 13 || l.Head().Seq != 4 {
		t.Errorf("revision 13: %v, %v, head %+v", got, err, l.Head())
	}
}

// A log that is there and can't be opened is a refusal that says what to do; one that is a directory is damage.
func TestLogThatCantBeOpened(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit.log")
	must(t, os.Mkdir(dir, 0o700))
	_, err := audit.Open(t.Context(), config(dir, false))
	if refused := refusal.From(err); refused.Code != refusal.Damaged || refused.Hint == "" {
		t.Errorf("a directory: %+v", refused)
	}
	loop := filepath.Join(t.TempDir(), "audit.log")
	must(t, os.Symlink(loop, loop))
	_, err = audit.Open(t.Context(), config(loop, false))
	if refused := refusal.From(err); refused.Code != refusal.Failed || refused.Hint == "" {
		t.Errorf("a file that can't be opened: %+v", refused)
	}
}
