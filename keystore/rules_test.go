package keystore_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/catalog/catalogtest"
	"nbdcrypt/pkg/refusal"
)

// contains tells which files under dir hold any of the needles, raw or as hex.
func contains(t *testing.T, dir string, needles ...[]byte) (found []string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		for _, n := range needles {
			if bytes.Contains(b, n) || bytes.Contains(b, []byte(hex.EncodeToString(n))) {
				found = append(found, path)
			}
		}
		return err
	}))
	return found
}

func TestRuleA4_NothingOpensWithoutTheRootKey(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	l.dek("default", "", disk1, "l1")
	dek, err := l.unwrap("default", disk1, "l1")
	must(t, err)
	if found := contains(t, l.dir, dek, dek[:32], dek[32:]); len(found) > 0 {
		t.Errorf("the DEK stands in %v", found)
	}
	l.close()
	must(t, os.Rename(l.keyFile, l.keyFile+".away"))
	for range 2 {
		r := wantCode(t, l.tryOpen(), refusal.Locked)
		if !strings.Contains(r.Hint, l.keyFile) || !strings.Contains(r.Hint, l.root0(t)) {
			t.Errorf("the hint %q names neither file nor store", r.Hint)
		}
		if _, err := os.Stat(l.keyFile); err == nil {
			t.Fatal("a root key was made anew")
		}
	}
	must(t, os.Rename(l.keyFile+".away", l.keyFile))
	l.open()
	if again, err := l.unwrap("default", disk1, "l1"); err != nil || !bytes.Equal(again, dek) {
		t.Errorf("with the root key back: %v", err)
	}
}

// root0 reads the store's id from its header.
func (l *lab) root0(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(l.dir, "store"))
	must(t, err)
	return strings.TrimPrefix(strings.Split(string(b), "\n")[1], "store ")
}

func TestRuleA5_RootKeyIsNotInTheStateDirectory(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	l.dek("default", "", disk1, "l1")
	root := bytes.Clone(l.root.Key().Bytes())
	if found := contains(t, l.dir, root); len(found) > 0 {
		t.Errorf("running, the root key stands in %v", found)
	}
	l.close()
	if found := contains(t, l.dir, root); len(found) > 0 {
		t.Errorf("stopped, the root key stands in %v", found)
	}
	if found := contains(t, filepath.Dir(l.keyFile), root); len(found) != 1 || found[0] != l.keyFile {
		t.Errorf("positive control: found in %v", found)
	}
	st, err := os.Stat(l.keyFile)
	must(t, err)
	if st.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %v", st.Mode())
	}
}

func TestRuleA6_DefaultKeyAppearsOnceWithTheGrant(t *testing.T) {
	l := newLab(t)
	l.wrap = catalogtest.Twice
	l.reopen()
	for _, project := range []string{"default", "other"} {
		keys, err := l.Keys(l.ctx(), project)
		if err != nil || len(keys) != 0 {
			t.Fatalf("before the grant: %v, %v", keys, err)
		}
		created, key, err := l.Grant(l.ctx(), l.request(), project, "root")
		if err != nil || !created || key.Alias != "evs/default" || !key.Default || key.State != keystore.Enabled || key.Version != 1 {
			t.Fatalf("the first grant: %v, %+v, %v", created, key, err)
		}
		created, again, err := l.Grant(l.ctx(), l.request(), project, "root")
		if err != nil || created || !reflect.DeepEqual(again, key) {
			t.Fatalf("the second grant: %v, %+v, %v", created, again, err)
		}
		must(t, l.RevokeGrant(l.ctx(), l.request(), project))
		created, again, err = l.Grant(l.ctx(), l.request(), project, "root")
		if err != nil || !created || !reflect.DeepEqual(again, key) {
			t.Fatalf("the grant after a revocation: %v, %+v, %v", created, again, err)
		}
		l.reopen()
		if keys, err := l.Keys(l.ctx(), project); err != nil || len(keys) != 1 || !reflect.DeepEqual(keys[0], key) {
			t.Fatalf("after all: %v, %v", keys, err)
		}
	}
}

func TestRuleA6_ConcurrentGrantsMakeOneKey(t *testing.T) {
	l := newLab(t)
	results := make(chan bool)
	for i := range 4 {
		go func() {
			created, _, err := l.Grant(l.ctx(), fmt.Sprint("g", i), "default", "root")
			if err != nil {
				t.Error(err)
			}
			results <- created
		}()
	}
	n := 0
	for range 4 {
		if <-results {
			n++
		}
	}
	if keys, err := l.Keys(l.ctx(), "default"); n != 1 || err != nil || len(keys) != 1 {
		t.Errorf("%d grants created, keys %v, %v", n, keys, err)
	}
}

func TestRuleA7_DefaultKeyCannotBeDisabled(t *testing.T) {
	l := newLab(t)
	key := l.grant("default")
	for _, ref := range []string{key.ID, key.Alias} {
		_, err := l.Disable(l.ctx(), l.request(), "default", ref)
		wantCode(t, err, refusal.KeyForbids)
	}
	if now, err := l.Key(l.ctx(), "default", key.ID); err != nil || now.State != keystore.Enabled {
		t.Errorf("it is %v, %v", now.State, err)
	}
}

func TestRuleA9_DefaultKeyIsShownAndItsNameReserved(t *testing.T) {
	l := newLab(t)
	key := l.grant("default")
	if again, err := l.Key(l.ctx(), "default", "evs/default"); err != nil || !reflect.DeepEqual(again, key) {
		t.Errorf("shows as %+v, %v", again, err)
	}
	for _, alias := range []string{"x/default", "evs/default", "/default"} {
		_, err := l.CreateKey(l.ctx(), l.request(), "default", keystore.KeySpec{Alias: alias})
		wantCode(t, err, refusal.Usage)
	}
	l.create("default", "xdefault")
}

func TestRuleA10_OwnKeysAndManyDEKs(t *testing.T) {
	l := newLab(t)
	def := l.grant("default")
	a, b := l.create("default", "a"), l.create("default", "b")
	recs := []keystore.Record{
		l.dek("default", "", disk1, "l1"),
		l.dek("default", "a", keystore.Holder{Kind: "disk", ID: "d2"}, "l2"),
		l.dek("default", a.ID, keystore.Holder{Kind: "disk", ID: "d3"}, "l3"),
		l.dek("default", "b", keystore.Holder{Kind: "disk", ID: "d4"}, "l4"),
	}
	seen := map[string]bool{}
	for i, want := range []string{def.ID, a.ID, a.ID, b.ID} {
		dek, ref, err := l.UnwrapDEK(l.ctx(), "default", recs[i].Holder, recs[i].Layer, 512)
		must(t, err)
		if ref.ID != want || ref.Version != 1 || seen[string(dek.Bytes())] || seen[string(recs[i].Blob)] {
			t.Errorf("disk %d: key %v, want %s, or its DEK or blob is not its own", i, ref, want)
		}
		seen[string(dek.Bytes())], seen[string(recs[i].Blob)] = true, true
		dek.Destroy()
	}
}

func TestRuleA16_DisabledKey(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	key := l.create("default", "mine")
	l.dek("default", "mine", disk1, "l1")
	before, err := l.unwrap("default", disk1, "l1")
	must(t, err)
	for range 2 {
		if info, err := l.Disable(l.ctx(), l.request(), "default", "mine"); err != nil || info.State != keystore.Disabled {
			t.Fatalf("disable: %v, %v", info.State, err)
		}
	}
	_, errAttach := l.unwrap("default", disk1, "l1")
	_, errCreate := l.GenerateDEK(l.ctx(), "default", "mine", disk1, "l2", 512)
	for _, err := range []error{errAttach, errCreate} {
		r := wantCode(t, err, refusal.KeyForbids)
		for _, want := range []string{"mine", key.ID, "Disabled"} {
			if !strings.Contains(r.Message, want) {
				t.Errorf("%q does not name %s", r.Message, want)
			}
		}
	}
	if _, err := l.Verify(l.ctx(), func(p keystore.Problem) { t.Errorf("a disabled key is reported: %+v", p) }); err != nil {
		t.Error(err)
	}
	l.reopen()
	if _, err := l.Enable(l.ctx(), l.request(), "default", key.ID); err != nil {
		t.Fatal(err)
	}
	if after, err := l.unwrap("default", disk1, "l1"); err != nil || !bytes.Equal(after, before) {
		t.Errorf("enabled again: %v", err)
	}
}

func TestRuleA38_A41_A42_WithoutGrant(t *testing.T) {
	l := newLab(t)
	refused := func(project string) {
		t.Helper()
		_, errKey := l.CreateKey(l.ctx(), l.request(), project, keystore.KeySpec{Alias: "a"})
		_, errDEK := l.GenerateDEK(l.ctx(), project, "", disk1, "l1", 512)
		for _, err := range []error{errKey, errDEK} {
			r := wantCode(t, err, refusal.Denied)
			for _, want := range []string{"rights are not granted", project, "alice", "root"} {
				if !strings.Contains(r.Message, want) {
					t.Errorf("%q does not say %s", r.Message, want)
				}
			}
		}
	}
	refused("default")
	l.grant("default")
	refused("b")
	l.create("default", "a")
	l.dek("default", "a", disk1, "l1")
	must(t, l.RevokeGrant(l.ctx(), l.request(), "default"))
	refused("default")
	_, err := l.unwrap("default", disk1, "l1")
	wantCode(t, err, refusal.Denied)
	wantCode(t, l.RevokeGrant(l.ctx(), l.request(), "default"), refusal.NotFound)
	l.grant("default")
	if _, err := l.unwrap("default", disk1, "l1"); err != nil {
		t.Errorf("granted again: %v", err)
	}
	l.close()
	l.region = "elsewhere"
	l.open()
	refused("default")
	if keys, err := l.Keys(l.ctx(), "default"); err != nil || len(keys) != 0 {
		t.Errorf("another region shows %v, %v", keys, err)
	}
	l.grant("default")
	l.create("default", "a")
	if grants, err := l.Grants(l.ctx()); err != nil || len(grants) != 1 || grants[0].Region != "elsewhere" || grants[0].By != "root" {
		t.Errorf("grants are %v, %v", grants, err)
	}
}

func TestRuleB4_Aliases(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	l.grant("b")
	for _, alias := range []string{"a", "Z9:/_-", strings.Repeat("x", 255), uuid.NewString()} {
		key := l.create("default", alias)
		if got, err := l.Key(l.ctx(), "default", alias); err != nil || !reflect.DeepEqual(got, key) {
			t.Errorf("%.20q shows as %+v, %v", alias, got, err)
		}
	}
	for _, alias := range []string{"", strings.Repeat("x", 256), "ä", "a b", "a.b", "a\n", "a\x00"} {
		_, err := l.CreateKey(l.ctx(), l.request(), "default", keystore.KeySpec{Alias: alias})
		wantCode(t, err, refusal.Usage)
	}
	_, err := l.CreateKey(l.ctx(), l.request(), "default", keystore.KeySpec{Alias: "a"})
	wantCode(t, err, refusal.Busy)
	one, err := l.Key(l.ctx(), "default", "a")
	must(t, err)
	_, err = l.CreateKey(l.ctx(), l.request(), "default", keystore.KeySpec{Alias: one.ID})
	wantCode(t, err, refusal.Busy)
	_, err = l.Update(l.ctx(), l.request(), "default", "Z9:/_-", keystore.Update{Alias: &one.ID})
	wantCode(t, err, refusal.Busy)
	l.create("b", "a")
	_, err = l.Key(l.ctx(), "default", "nothing")
	wantCode(t, err, refusal.NotFound)
	inB, err := l.Key(l.ctx(), "b", "a")
	must(t, err)
	_, err = l.Key(l.ctx(), "default", inB.ID)
	wantCode(t, err, refusal.NotFound)
}

func TestRuleB5_HundredKeys(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	for i := range keystore.MaxKeys {
		l.create("default", fmt.Sprint("k", i))
	}
	_, err := l.CreateKey(l.ctx(), l.request(), "default", keystore.KeySpec{Alias: "one-more"})
	r := wantCode(t, err, refusal.Busy)
	if !strings.Contains(r.Message, "100") {
		t.Errorf("%q names no number", r.Message)
	}
}

// C3: everything that a DEK's identity holds, changed one at a time, and blobs that changed places.
func TestRuleC3_BlobOpensOnlyWhereItBelongs(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	l.grant("b")
	l.create("default", "mine")
	other := l.create("default", "other")
	rec := l.dek("default", "mine", disk1, "l1")
	stranger := l.dek("default", "mine", keystore.Holder{Kind: "disk", ID: "d2"}, "l2")
	changes := map[string]func(*keystore.Record){
		"another disk's blob": func(r *keystore.Record) { r.Blob = stranger.Blob },
		"another key":         func(r *keystore.Record) { r.CMK = uuid.MustParse(other.ID) },
		"another version":     func(r *keystore.Record) { r.CMKVersion = 2 },
		"another cipher":      func(r *keystore.Record) { r.Cipher = "aes-xts-plain" },
		"another record":      func(r *keystore.Record) { r.Version = 2 },
		"another holder":      func(r *keystore.Record) { r.Holder.ID, r.Holder.Kind = "d1", "snapshot" },
		"blob version":        func(r *keystore.Record) { r.Blob[0]++ },
		"blob flags":          func(r *keystore.Record) { r.Blob[1] |= 1 },
		"cut blob":            func(r *keystore.Record) { r.Blob = r.Blob[:len(r.Blob)-1] },
		"long blob":           func(r *keystore.Record) { r.Blob = append(r.Blob, 0) },
		"no blob":             func(r *keystore.Record) { r.Blob = nil },
	}
	for i := range rec.Blob {
		changes[fmt.Sprint("blob byte ", i)] = func(r *keystore.Record) { r.Blob[i] ^= 0x40 }
	}
	for what, change := range changes {
		bad := rec
		bad.Blob = bytes.Clone(rec.Blob)
		change(&bad)
		l.putAt("dek/disk/d1/l1", bad)
		if dek, err := l.unwrap("default", disk1, "l1"); refusal.CodeOf(err) != refusal.Damaged || dek != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Under another name, with its own header and with one that fits the place.
	moved := rec
	l.putAt("dek/disk/d2/l2", moved)
	_, err := l.unwrap("default", stranger.Holder, "l2")
	wantCode(t, err, refusal.Damaged)
	moved.Holder, moved.Layer = stranger.Holder, "l2"
	l.put(moved)
	_, err = l.unwrap("default", stranger.Holder, "l2")
	wantCode(t, err, refusal.Damaged)
	// Under another project or sector size than the disk has.
	l.put(rec)
	_, err = l.unwrap("b", disk1, "l1")
	wantCode(t, err, refusal.Damaged)
	_, _, err = l.UnwrapDEK(l.ctx(), "default", disk1, "l1", 4096)
	wantCode(t, err, refusal.Damaged)
	bad := rec
	bad.SectorSize = 4096
	l.put(bad)
	_, _, err = l.UnwrapDEK(l.ctx(), "default", disk1, "l1", 4096)
	wantCode(t, err, refusal.Damaged)
	l.put(rec)
	if _, err := l.unwrap("default", disk1, "l1"); err != nil {
		t.Errorf("positive control: %v", err)
	}
}

// putAt writes any value as JSON at a name, under a good seal.
func (l *lab) putAt(name string, v any) {
	l.t.Helper()
	b, err := json.Marshal(v)
	must(l.t, err)
	must(l.t, l.sealed.Update(l.ctx(), l.request(), func(t catalog.Txn) error { return t.Put(name, b) }))
}

func TestRuleC3_SealedValueOpensOnlyUnderItsName(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	must(t, l.raw.Update(l.ctx(), l.request(), func(txn catalog.Txn) error {
		pairs, err := txn.Scan("key/", "", 1)
		must(t, err)
		return txn.Put(pairs[0].Key+"0", pairs[0].Value)
	}))
	keys, err := l.Keys(l.ctx(), "default")
	if err != nil || len(keys) != 2 || keys[0].Unreadable || !keys[1].Unreadable || keys[1].ID != keys[0].ID+"0" {
		t.Errorf("the keys are %+v, %v", keys, err)
	}
	l.close()
	l.open() // what else there is stays usable
	if _, err := l.Key(l.ctx(), "default", ""); err != nil {
		t.Errorf("the key beside it: %v", err)
	}
}

func TestRuleC19_TheTwoKeysOfXTSDiffer(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	for i := range 20 {
		h := keystore.Holder{Kind: "disk", ID: fmt.Sprint("d", i)}
		l.dek("default", "", h, "l")
		dek, err := l.unwrap("default", h, "l")
		if err != nil || bytes.Equal(dek[:32], dek[32:]) {
			t.Errorf("disk %d: %v", i, err)
		}
	}
}

func TestRuleC12_DroppingNeedsNoKey(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	l.create("default", "mine")
	l.dek("default", "mine", disk1, "l1")
	_, err := l.Disable(l.ctx(), l.request(), "default", "mine")
	must(t, err)
	must(t, l.sealed.Update(l.ctx(), l.request(), func(txn catalog.Txn) error {
		return keystore.DropDEKs(txn, disk1, "l1", "never there")
	}))
	_, err = l.unwrap("default", disk1, "l1")
	wantCode(t, err, refusal.Damaged)
	must(t, l.raw.View(l.ctx(), func(r catalog.Reader) error {
		pairs, err := r.Scan("dek/", "", 1)
		if len(pairs) != 0 {
			t.Errorf("%s is left", pairs[0].Key)
		}
		return err
	}))
}

// Without room for its erase key a CMK is refused with what to do, and nothing of it is left.
func TestNoRoomForAKey(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	must(t, err)
	l.WithErase(full)
	_, err = l.CreateKey(l.ctx(), l.request(), "default", keystore.KeySpec{Alias: "k"})
	wantCode(t, err, refusal.Failed)
	if refusal.From(err).Hint == "" || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v", err)
	}
	_, err = l.Key(l.ctx(), "default", "k")
	wantCode(t, err, refusal.NotFound)
}

// An id that something holds names its key in each region, and nobody else once that key is deleted.
func TestKeyOfAnIDIsNoAlias(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	gone := l.create("default", "gone")
	stays := l.create("default", "stays")
	_, err := l.ScheduleDeletion(l.ctx(), l.request(), "default", "gone", 7)
	must(t, err)
	l.clock.Advance(7 * 24 * 3600e9)
	_, err = l.Delete(l.ctx(), l.request(), "default", "gone")
	must(t, err)
	l.create("default", gone.ID)
	_, err = l.KeyOf(l.ctx(), "default", gone.ID)
	wantCode(t, err, refusal.NotFound)
	l.in("there")
	_, err = l.Key(l.ctx(), "default", stays.ID)
	wantCode(t, err, refusal.NotFound)
	if k, err := l.KeyOf(l.ctx(), "default", stays.ID); err != nil || !reflect.DeepEqual(k, stays) {
		t.Errorf("in another region it is %+v, %v", k, err)
	}
}
