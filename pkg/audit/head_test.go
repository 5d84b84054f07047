package audit_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/pkg/audit"
	"nbdcrypt/pkg/audit/chain"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// keep is a store with a log: what of it is on the disk, and the catalog.
type keep struct {
	t       *testing.T
	dir     string
	catalog catalog.Store
}

// newKeep makes a store whose log has six records; the catalog saw the first two.
func newKeep(t *testing.T) *keep {
	t.Helper()
	k := &keep{t, t.TempDir(), catalog.Memory()}
	l := k.mustOpen(true)
	must(t, l.KeepHead(t.Context(), "keyed", k.catalog, false))
	k.add(l, 2)
	must(t, audit.Witness(k.catalog, l).Update(t.Context(), "u", func(catalog.Txn) error { return nil }))
	k.add(l, 4)
	must(t, l.Close())
	return k
}

func (k *keep) log() string  { return filepath.Join(k.dir, "audit.log") }
func (k *keep) head() string { return filepath.Join(k.dir, audit.HeadFile) }

func (k *keep) add(l *audit.Log, n int) {
	k.t.Helper()
	for range n {
		_, err := l.Append(k.t.Context(), audit.Record{Verb: "attach", User: "bob", Resource: "disk", Outcome: audit.OK, Catalog: 1})
		must(k.t, err)
	}
}

// open opens the log as a start does.
func (k *keep) open(create bool) (*audit.Log, error) {
	l, err := audit.Open(k.t.Context(), config(k.log(), create))
	if err != nil {
		return nil, err
	}
	k.t.Cleanup(func() { _ = l.Close() })
	return l, l.CheckHead(k.t.Context(), k.catalog)
}

func (k *keep) mustOpen(create bool) *audit.Log {
	k.t.Helper()
	l, err := k.open(create)
	must(k.t, err)
	return l
}

func (k *keep) lines() [][]byte {
	lines := bytes.SplitAfter(read(k.t, k.log()), []byte("\n"))
	return lines[:len(lines)-1]
}

func (k *keep) write(path string, parts ...[]byte) {
	must(k.t, os.WriteFile(path, bytes.Join(parts, nil), 0o600))
}

// rewrite computes a history anew, as whoever has no key can: every line is right by itself.
func (k *keep) rewrite(change func([]audit.Record) []audit.Record) {
	k.t.Helper()
	var records []audit.Record
	for _, line := range k.lines() {
		rec, err := chain.Parse(bytes.TrimSuffix(line, []byte("\n")))
		must(k.t, err)
		records = append(records, rec)
	}
	prev, text := chain.Genesis(store), []byte{}
	for i, rec := range change(records) {
		rec.Seq, rec.Prev = uint64(i+1), prev
		line, err := chain.Encode(&rec)
		must(k.t, err)
		prev, text = rec.Hash, append(append(text, line...), '\n')
	}
	k.write(k.log(), text)
}

// tamperings are what somebody who can write files, and has no key, may do to a log; line is the one that a refusal has to name.
var tamperings = []struct {
	name string
	line int
	do   func(*keep)
}{
	{"edit", 3, func(k *keep) {
		l := k.lines()
		l[2] = bytes.Replace(l[2], []byte("bob"), []byte("eve"), 1)
		k.write(k.log(), l...)
	}},
	{"drop", 3, func(k *keep) { l := k.lines(); k.write(k.log(), append(l[:2], l[3:]...)...) }},
	{"drop the first", 1, func(k *keep) { k.write(k.log(), k.lines()[1:]...) }},
	{"insert", 4, func(k *keep) {
		l := k.lines()
		k.write(k.log(), l[0], l[1], l[2], l[1], l[3], l[4], l[5])
	}},
	{"reorder", 4, func(k *keep) { l := k.lines(); k.write(k.log(), l[0], l[1], l[2], l[4], l[3], l[5]) }},
	{"cut at the end of a line", 5, func(k *keep) { k.write(k.log(), k.lines()[:5]...) }},
	{"cut below the catalog's head", 1, func(k *keep) { k.write(k.log(), k.lines()[:1]...) }},
	{"cut to nothing", 0, func(k *keep) { k.write(k.log()) }},
	{"cut inside of the last line", 5, func(k *keep) { b := read(k.t, k.log()); k.write(k.log(), b[:len(b)-10]) }},
	{"cut by the last line feed", 5, func(k *keep) { b := read(k.t, k.log()); k.write(k.log(), b[:len(b)-1]) }},
	{"an edit chained anew", 6, func(k *keep) {
		k.rewrite(func(r []audit.Record) []audit.Record { r[3].User = "eve"; return r })
	}},
	{"a drop chained anew", 5, func(k *keep) {
		k.rewrite(func(r []audit.Record) []audit.Record { return append(r[:3], r[4:]...) })
	}},
	{"an insert chained anew", 6, func(k *keep) {
		k.rewrite(func(r []audit.Record) []audit.Record { return append(r, r[0]) })
		k.rewrite(func(r []audit.Record) []audit.Record { r[4].User = "eve"; return r })
	}},
	{"all of it chained anew", 2, func(k *keep) {
		must(k.t, os.Remove(k.head()))
		k.rewrite(func(r []audit.Record) []audit.Record { r[0].User = "eve"; return r })
	}},
	{"head removed", -1, func(k *keep) { must(k.t, os.Remove(k.head())) }},
	{"head emptied", -1, func(k *keep) { k.write(k.head()) }},
	{"head of garbage", -1, func(k *keep) { k.write(k.head(), bytes.Repeat([]byte("x"), 8192)) }},
	{"head of zeros", -1, func(k *keep) { k.write(k.head(), make([]byte, 8192)) }},
	{"head is a folder", -1, func(k *keep) { must(k.t, os.Remove(k.head())); must(k.t, os.Mkdir(k.head(), 0o700)) }},
	{"head is a link", -1, func(k *keep) {
		must(k.t, os.Rename(k.head(), k.head()+"2"))
		must(k.t, os.Symlink(k.head()+"2", k.head()))
	}},
	{"head of another store", -1, func(k *keep) { k.forgeHead(config("", true).MAC, uuid.New()) }},
	{"head under another key", -1, func(k *keep) { k.forgeHead(underKey("eve's"), store) }},
	{"head with another number", -1, func(k *keep) {
		b := read(k.t, k.head())
		b[35], b[4096+35] = 3, 3
		k.write(k.head(), b)
	}},
	{"cut by a line, and the block that knows it spoilt", -1, func(k *keep) {
		k.write(k.log(), k.lines()[:5]...)
		b := read(k.t, k.head())
		newer := 0
		if b[4096+35] > b[35] {
			newer = 4096
		}
		b[newer+70] ^= 1
		k.write(k.head(), b)
	}},
	{"one block spoilt", -1, func(k *keep) {
		b := read(k.t, k.head())
		b[40] ^= 1
		k.write(k.head(), b)
	}},
	{"head with something behind it", -1, func(k *keep) {
		b := read(k.t, k.head())
		b[4095], b[8191] = 1, 1
		k.write(k.head(), b)
	}},
}

// forgeHead makes a head of the log as it is, which fits but for the key or the store.
func (k *keep) forgeHead(mac audit.MAC, of uuid.UUID) {
	k.t.Helper()
	other := k.t.TempDir()
	c := config(filepath.Join(other, "audit.log"), true)
	c.MAC, c.Store = mac, of
	if of == store {
		must(k.t, os.WriteFile(c.Path, read(k.t, k.log()), 0o600))
	}
	l, err := audit.Open(k.t.Context(), c)
	must(k.t, err)
	must(k.t, l.Close())
	k.write(k.head(), read(k.t, filepath.Join(other, audit.HeadFile)))
}

// wantFound wants a refusal of damage that names the line, or the head.
func wantFound(t *testing.T, line int, err error) {
	t.Helper()
	r := refusal.From(err)
	if r == nil || r.Code != refusal.Damaged || r.Hint == "" {
		t.Fatalf("it gives %v", err)
	}
	names := audit.HeadFile
	if line >= 0 {
		names = fmt.Sprintf("line %d", line)
	}
	if !strings.Contains(r.Message+" ", names) {
		t.Errorf("%q does not name %s", r.Message, names)
	}
}

func TestRuleC18_TamperingIsFoundAtStart(t *testing.T) {
	for _, c := range tamperings {
		t.Run(c.name, func(t *testing.T) {
			k := newKeep(t)
			k.mustOpen(false)
			c.do(k)
			log, _ := os.ReadFile(k.log())
			_, err := k.open(false)
			line := c.line
			if line == 2 {
				line = -1 // without a head the catalog is not asked for its own
			}
			wantFound(t, line, err)
			if after, _ := os.ReadFile(k.log()); !bytes.Equal(log, after) {
				t.Error("a damaged log was changed")
			}
		})
	}
}

// The same, behind the back of a daemon that runs.
func TestRuleC18_TamperingIsFoundByVerify(t *testing.T) {
	for _, c := range tamperings {
		t.Run(c.name, func(t *testing.T) {
			k := newKeep(t)
			l := k.mustOpen(false)
			must(t, k.verify(l))
			c.do(k)
			err := k.verify(l)
			if r := refusal.From(err); r == nil || r.Code != refusal.Damaged || r.Hint == "" {
				t.Errorf("it gives %v", err)
			}
		})
	}
	for name, do := range map[string]func(*keep){
		"removed":        func(k *keep) { must(t, os.Remove(k.log())) },
		"replaced":       func(k *keep) { b := read(t, k.log()); must(t, os.Remove(k.log())); k.write(k.log(), b) },
		"something more": func(k *keep) { k.write(k.log(), read(t, k.log()), []byte("{")) },
		"one line more":  func(k *keep) { k.write(k.log(), read(t, k.log()), k.lines()[0]) },
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeep(t)
			l := k.mustOpen(false)
			do(k)
			if err := k.verify(l); refusal.CodeOf(err) != refusal.Damaged {
				t.Errorf("it gives %v", err)
			}
		})
	}
}

func (k *keep) verify(l *audit.Log, heads ...audit.Head) error {
	k.t.Helper()
	kept, err := audit.CatalogHead(k.t.Context(), k.catalog)
	must(k.t, err)
	kept["you"] = heads
	v, err := l.Verify(k.t.Context(), kept, func(int64, int64) {})
	if err == nil && (v.Head != l.Head() || !v.Time.Equal(time.Unix(1e9, 0)) || v.Bytes != int64(len(read(k.t, k.log())))) {
		k.t.Errorf("verified %+v, the head is %+v", v, l.Head())
	}
	return err
}

// Log, head and catalog that are put back together to an older state are whole: only a head that was kept elsewhere tells.
func TestRuleC18_AnchoredHeadFindsARollback(t *testing.T) {
	k := newKeep(t)
	log, head := read(t, k.log()), read(t, k.head())
	l := k.mustOpen(false)
	k.add(l, 2)
	anchor := l.Head()
	must(t, k.verify(l, anchor))
	must(t, l.Close())

	k.write(k.log(), log)
	if _, err := k.open(false); refusal.CodeOf(err) != refusal.Damaged {
		t.Errorf("the log alone put back: %v", err)
	}
	k.write(k.head(), head)
	l = k.mustOpen(false)
	must(t, k.verify(l))
	wantFound(t, 6, k.verify(l, anchor))
	for range 3 { // as many records as before, and others
		_, err := l.Append(t.Context(), audit.Record{Verb: "later", Catalog: 1})
		must(t, err)
	}
	wantFound(t, int(anchor.Seq), k.verify(l, anchor))
}

// A head that is older than the log, as a power cut leaves it, is as good.
func TestOlderHeadIsTaken(t *testing.T) {
	k := newKeep(t)
	old := read(t, k.head())
	l := k.mustOpen(false)
	k.add(l, 3)
	must(t, l.Close())
	k.write(k.head(), old)
	l = k.mustOpen(false)
	k.add(l, 1)
	must(t, l.Close())
	must(t, k.mustOpen(false).Close())
}

// A last line that the head never saw is one that nobody got an answer for; one that it saw was cut.
func TestRuleC18_TornLineIsNoWayAround(t *testing.T) {
	k := newKeep(t)
	head := read(t, k.head())
	l := k.mustOpen(false)
	k.add(l, 1)
	must(t, l.Close())
	whole := read(t, k.log())
	k.write(k.log(), whole[:len(whole)-7])
	if _, err := k.open(false); refusal.CodeOf(err) != refusal.Damaged {
		t.Errorf("a line that was synced was cut: %v", err)
	}
	k.write(k.head(), head)
	if l = k.mustOpen(false); l.Head().Seq != 7 {
		t.Errorf("the head is %+v", l.Head())
	}
}

// A store from before there were heads gets one, and from then on needs it.
func TestStoreFromBeforeGetsAHead(t *testing.T) {
	k := newKeep(t)
	must(t, os.Remove(k.head()))
	must(t, k.catalog.Update(t.Context(), "before", func(txn catalog.Txn) error { return txn.Delete("audit/keyed") }))
	l := k.mustOpen(false)
	k.add(l, 1)
	if _, err := os.Stat(k.head()); !os.IsNotExist(err) {
		t.Errorf("a head before it is asked for: %v", err)
	}
	must(t, l.KeepHead(t.Context(), "now", k.catalog, false))
	must(t, l.KeepHead(t.Context(), "again", k.catalog, false))
	k.add(l, 1)
	must(t, k.verify(l))
	must(t, l.Close())
	must(t, k.mustOpen(false).Close())
	must(t, os.Remove(k.head()))
	if _, err := k.open(false); refusal.CodeOf(err) != refusal.Damaged {
		t.Errorf("without its head: %v", err)
	}
}

// Where the head can't be written records are as good as ever, and somebody hears of it.
func TestHeadThatCantBeWritten(t *testing.T) {
	k := newKeep(t)
	c, told := config(k.log(), false), 0
	broken := false
	c.MAC = func(m []byte) ([]byte, error) {
		if broken {
			return nil, os.ErrInvalid
		}
		return underKey("ours")(m)
	}
	c.HeadFailed = func(error) { told++ }
	l, err := audit.Open(t.Context(), c)
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	broken = true
	k.add(l, 2)
	if told != 2 || l.Head().Seq != 8 {
		t.Errorf("told %d times, head %+v", told, l.Head())
	}
	broken = false
	must(t, k.verify(l))
	k.add(l, 1)
	must(t, k.verify(l))
	must(t, l.Close())
	must(t, k.mustOpen(false).Close())
}
