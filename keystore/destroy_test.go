package keystore_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

const oneDay = 24 * time.Hour

// doomed makes key "mine" with a disk under it, and schedules its deletion.
func (l *lab) doomed(days int) keystore.Info {
	l.t.Helper()
	l.grant("default")
	l.create("default", "mine")
	l.dek("default", "mine", disk1, "l1")
	info, err := l.ScheduleDeletion(l.ctx(), l.request(), "default", "mine", days)
	must(l.t, err)
	return info
}

// eraseKey is the erase key in a pair of the erase file.
func (l *lab) eraseKey(pair int64) []byte {
	l.t.Helper()
	b, err := os.ReadFile(filepath.Join(l.dir, keystore.EraseFile))
	must(l.t, err)
	return b[pair*8192+20 : pair*8192+52]
}

// record is a record of the catalog as it is stored, nil where there is none.
func (l *lab) record(name string) (value []byte) {
	l.t.Helper()
	must(l.t, l.sealed.View(l.ctx(), func(r catalog.Reader) (err error) {
		value, err = r.Get(name)
		if errors.Is(err, catalog.ErrNotFound) {
			return nil
		}
		return err
	}))
	return value
}

func (l *lab) delete() error {
	_, err := l.Delete(l.ctx(), l.request(), "default", "mine")
	return err
}

// wantGone checks that nothing is left of key "mine" that could open something.
func (l *lab) wantGone(id string, eraseKey []byte) {
	l.t.Helper()
	_, err := l.Key(l.ctx(), "default", "mine")
	wantCode(l.t, err, refusal.NotFound)
	_, err = l.Key(l.ctx(), "default", id)
	wantCode(l.t, err, refusal.NotFound)
	_, err = l.unwrap("default", disk1, "l1")
	if r := wantCode(l.t, err, refusal.KeyForbids); !strings.Contains(r.Message, "deleted") || !strings.Contains(r.Message, id) {
		l.t.Errorf("%q does not say what is deleted", r.Message)
	}
	if l.record("key/default/"+id) != nil || l.record("alias/here/default/mine") != nil {
		l.t.Error("its records are left")
	}
	if found := contains(l.t, l.dir, eraseKey); len(found) > 0 {
		l.t.Errorf("its erase key stands in %v", found)
	}
	if due := l.due(); len(due) > 0 {
		l.t.Errorf("still due: %+v", due)
	}
	l.wantProblems()
}

func TestRuleB1_DeletionWindow(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	for _, days := range []int{-1, 0, 6, 1097, 1 << 40} {
		l.create("default", fmt.Sprint("bad", days+1))
		_, err := l.ScheduleDeletion(l.ctx(), l.request(), "default", fmt.Sprint("bad", days+1), days)
		wantCode(t, err, refusal.Usage)
	}
	for _, days := range []int{7, 1096} {
		alias := fmt.Sprint("k", days)
		l.create("default", alias)
		info, err := l.ScheduleDeletion(l.ctx(), "schedule "+alias, "default", alias, days)
		must(t, err)
		at := l.clock.Now().Add(time.Duration(days) * oneDay)
		if info.State != keystore.PendingDeletion || info.Deletion == nil || !info.Deletion.Equal(at) {
			t.Errorf("%d days: %+v", days, info)
		}
		l.clock.Advance(time.Hour)
		if again, err := l.ScheduleDeletion(l.ctx(), "schedule "+alias, "default", alias, days); err != nil || !again.Deletion.Equal(at) {
			t.Errorf("the same call again: %+v, %v", again, err)
		}
		l.clock.Advance(-time.Hour)
		l.clock.Advance(time.Duration(days)*oneDay - time.Second)
		_, err = l.Delete(l.ctx(), l.request(), "default", alias)
		wantCode(t, err, refusal.KeyForbids)
		if due := l.due(); len(due) != 0 {
			t.Errorf("a second before: %+v", due)
		}
		l.reopen()
		l.clock.Advance(time.Second)
		due := l.due()
		if len(due) != 1 || due[0].Kind != keystore.DueDeletion || due[0].Alias != alias {
			t.Fatalf("on its date: %+v", due)
		}
		_, err = l.DeleteDue(l.ctx(), l.request(), due[0])
		must(t, err)
		if _, err = l.DeleteDue(l.ctx(), l.request(), due[0]); !errors.Is(err, catalog.ErrNotFound) {
			t.Errorf("twice: %v", err)
		}
		_, err = l.Key(l.ctx(), "default", alias)
		wantCode(t, err, refusal.NotFound)
	}
}

// A18, A19 and choice D2: pending, nothing is unwrapped or made; cancelled, the key is Disabled, and Enabled where that is asked for.
func TestRuleA19_CancelledDeletion(t *testing.T) {
	l := newLab(t)
	info := l.doomed(7)
	_, errAttach := l.unwrap("default", disk1, "l1")
	_, errCreate := l.GenerateDEK(l.ctx(), "default", "mine", disk1, "l2", 512)
	for _, err := range []error{errAttach, errCreate} {
		r := wantCode(t, err, refusal.KeyForbids)
		if !strings.Contains(r.Message, "Pending deletion") || !strings.Contains(r.Message, info.Deletion.Format(time.RFC3339)) || !strings.Contains(r.Hint, "cancel-deletion mine") {
			t.Errorf("%+v", r)
		}
	}
	kept, err := l.CancelDeletion(l.ctx(), l.request(), "default", "mine", false)
	if err != nil || kept.State != keystore.Disabled || kept.Deletion != nil {
		t.Errorf("cancelled: %+v, %v", kept, err)
	}
	l.reopen()
	l.clock.Advance(8 * oneDay)
	if due := l.due(); len(due) != 0 {
		t.Errorf("cancelled, and due: %+v", due)
	}
	_, err = l.Enable(l.ctx(), l.request(), "default", "mine")
	must(t, err)
	if _, err := l.unwrap("default", disk1, "l1"); err != nil {
		t.Error(err)
	}
	_, err = l.ScheduleDeletion(l.ctx(), l.request(), "default", "mine", 7)
	must(t, err)
	if kept, err := l.CancelDeletion(l.ctx(), l.request(), "default", "mine", true); err != nil || kept.State != keystore.Enabled {
		t.Errorf("cancelled with enable: %+v, %v", kept, err)
	}
	// One without key material was Pending import, and is again.
	_, err = l.CreateKey(l.ctx(), l.request(), "default", keystore.KeySpec{Alias: "empty", Origin: keystore.OriginImported})
	must(t, err)
	_, err = l.ScheduleDeletion(l.ctx(), l.request(), "default", "empty", 7)
	must(t, err)
	if kept, err := l.CancelDeletion(l.ctx(), l.request(), "default", "empty", true); err != nil || kept.State != keystore.PendingImport {
		t.Errorf("without key material: %+v, %v", kept, err)
	}
}

func TestRuleA8_DefaultKeyCannotBeScheduled(t *testing.T) {
	l := newLab(t)
	key := l.grant("default")
	for _, ref := range []string{key.ID, key.Alias, ""} {
		_, err := l.ScheduleDeletion(l.ctx(), l.request(), "default", ref, 7)
		wantCode(t, err, refusal.KeyForbids)
		_, err = l.Update(l.ctx(), l.request(), "default", ref, keystore.Update{Alias: ptr("other")})
		wantCode(t, err, refusal.KeyForbids)
	}
	if now, err := l.Key(l.ctx(), "default", key.ID); err != nil || now.State != keystore.Enabled || now.Deletion != nil {
		t.Errorf("it is %+v, %v", now, err)
	}
}

func ptr[T any](v T) *T { return &v }

// Rule A21: the key is gone from the store's bytes, and with its old record put back nothing opens either, nor after a restart, nor
// when another key has taken its slot.
func TestRuleA21_DeletedKeyIsGoneFromTheBytes(t *testing.T) {
	l := newLab(t)
	info := l.doomed(7)
	eraseKey, record := l.eraseKey(2), l.record("key/default/"+info.ID)
	if found := contains(t, l.dir, eraseKey); len(found) != 1 || filepath.Base(found[0]) != keystore.EraseFile {
		t.Fatalf("positive control: found in %v", found)
	}
	for i := range 130 {
		l.putAt(fmt.Sprintf("key-grant/%s/%03d", info.ID, i), i)
	}
	l.clock.Advance(7 * oneDay)
	must(t, l.delete())
	l.wantGone(info.ID, eraseKey)
	must(t, l.raw.View(l.ctx(), func(r catalog.Reader) error {
		if left, _ := r.Scan("key-grant/", "", 1000); len(left) > 0 {
			t.Errorf("%d grants are left", len(left))
		}
		return nil
	}))
	l.reopen()
	l.wantGone(info.ID, eraseKey)
	for _, again := range []func(){func() {}, l.reopen, func() { l.create("default", "heir") }, l.reopen} {
		again()
		var enabled map[string]any
		must(t, json.Unmarshal(record, &enabled))
		enabled["state"] = "Enabled"
		delete(enabled, "deletion")
		l.putAt("key/default/"+info.ID, enabled)
		_, err := l.unwrap("default", disk1, "l1")
		wantCode(t, err, refusal.Damaged)
		must(t, l.sealed.Update(l.ctx(), l.request(), func(txn catalog.Txn) error { return txn.Delete("key/default/" + info.ID) }))
	}
	if _, err := l.unwrap("default", l.dek("default", "heir", keystore.Holder{Kind: "disk", ID: "d9"}, "l9").Holder, "l9"); err != nil {
		t.Errorf("the heir of the slot: %v", err)
	}
}

// Rule A21: killed at any step, a deletion either has not begun, or the next start finishes it.
func TestRuleA21_DeletionCutOffAnywhere(t *testing.T) {
	for _, c := range []struct {
		name    string
		commits int  // how many are made before the end
		full    bool // the erase file can't be written
		half    int  // how much of the slot is zero when it ends
		begun   bool
	}{
		{"before it began", 0, false, 0, false},
		{"before the slot was written", 9, true, 0, true},
		{"in the middle of the slot's first copy", 9, true, 2000, true},
		{"between the two copies", 9, true, 4096, true},
		{"before the sync", 9, true, 8192, true},
		{"before the first grants were dropped", 1, false, 0, true},
		{"before the rest was dropped", 2, false, 0, true},
		{"not at all", 9, false, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			info := l.doomed(7)
			eraseKey := bytes.Clone(l.eraseKey(2))
			for i := range 70 {
				l.putAt(fmt.Sprintf("key-grant/%s/%03d", info.ID, i), i)
			}
			l.clock.Advance(7 * oneDay)
			left := 1 << 30
			l.wrap = func(s catalog.Store) catalog.Store { return stopping{s, &left} }
			l.reopen()
			left = c.commits
			if c.full {
				full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
				must(t, err)
				l.WithErase(full)
			}
			if err := l.delete(); (err == nil) != (c.name == "not at all") {
				t.Fatalf("it ends with %v", err)
			}
			left = 1 << 30
			if begun := l.Due(time.Time{}); c.name != "not at all" && (len(begun) == 1 && begun[0].Begun()) != c.begun {
				t.Errorf("begun: %+v", begun)
			}
			if c.begun {
				_, err := l.Key(l.ctx(), "default", "mine")
				wantCode(t, err, refusal.NotFound)
				_, err = l.unwrap("default", disk1, "l1")
				wantCode(t, err, refusal.KeyForbids)
				_, err = l.CancelDeletion(l.ctx(), l.request(), "default", info.ID, true)
				wantCode(t, err, refusal.NotFound)
			}
			l.zero(2, c.half)
			l.wrap = nil
			l.reopen()
			if !c.begun {
				if now, err := l.Key(l.ctx(), "default", "mine"); err != nil || now.State != keystore.PendingDeletion {
					t.Fatalf("not begun: %+v, %v", now, err)
				}
				must(t, l.delete())
			}
			l.wantGone(info.ID, eraseKey)
			l.create("default", "mine") // its alias and its slot are free
		})
	}
}

// zero overwrites the beginning of a pair.
func (l *lab) zero(pair int64, n int) {
	l.t.Helper()
	f, err := os.OpenFile(filepath.Join(l.dir, keystore.EraseFile), os.O_RDWR, 0)
	must(l.t, err)
	defer f.Close()
	_, err = f.WriteAt(make([]byte, n), pair*8192)
	must(l.t, err)
}

// While the daemon runs on, what could not be overwritten is tried again, and is gone for everybody meanwhile.
func TestRuleA21_DeletionIsTriedAgain(t *testing.T) {
	l := newLab(t)
	info := l.doomed(7)
	eraseKey := bytes.Clone(l.eraseKey(2))
	l.clock.Advance(7 * oneDay)
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	must(t, err)
	good := l.WithErase(full)
	if r := wantCode(t, l.delete(), refusal.Failed); !strings.Contains(r.Message, "not destroyed yet") {
		t.Errorf("%q", r.Message)
	}
	due := l.due()
	if len(due) != 1 || due[0].Kind != keystore.DueErase || due[0].ID != info.ID {
		t.Fatalf("due: %+v", due)
	}
	l.WithErase(good)
	_, err = l.DeleteDue(l.ctx(), l.request(), due[0])
	must(t, err)
	l.wantGone(info.ID, eraseKey)
}

// The erase slot of a deleted key with a damaged copy, or two, is overwritten all the same; a key whose slot it became is left alone.
func TestRuleA21_DamagedSlotIsOverwritten(t *testing.T) {
	l := newLab(t)
	info := l.doomed(7)
	eraseKey := bytes.Clone(l.eraseKey(2))
	l.breakSlot(2, 0)
	l.breakSlot(2, 4096)
	l.clock.Advance(7 * oneDay)
	must(t, l.delete())
	l.wantGone(info.ID, eraseKey)
	if b, err := os.ReadFile(filepath.Join(l.dir, keystore.EraseFile)); err != nil || !bytes.Equal(b[2*8192:3*8192], make([]byte, 8192)) {
		t.Errorf("the slot is not zero: %v", err)
	}
}
