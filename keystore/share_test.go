package keystore_test

import (
	"bytes"
	"strings"
	"testing"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/refusal"
)

var snapshot1 = keystore.Holder{Kind: "snapshot", ID: "s1"}

// Two holders have one DEK, each in a record of its own; what becomes of one is nothing to the other.
func TestShareDEK(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	a := l.create("default", "a").ID
	b := l.create("default", "b").ID
	l.dek("default", "a", disk1, "l1")
	l.rotate("a")
	want, err := l.unwrap("default", disk1, "l1")
	must(t, err)
	for _, key := range []string{a, b} {
		rec, err := l.ShareDEK(l.ctx(), "default", key, disk1, snapshot1, "l1")
		must(t, err)
		if version := map[string]uint32{a: 2, b: 1}[key]; rec.CMKVersion != version {
			t.Errorf("under %q: version %d, want %d", key, rec.CMKVersion, version)
		}
		l.put(rec)
		if got, err := l.unwrap("default", snapshot1, "l1"); err != nil || !bytes.Equal(got, want) {
			t.Errorf("under %q: %v", key, err)
		}
	}
	if got := l.uses("a"); got != "disk d1" {
		t.Errorf("a is used by %q", got)
	}
	if got := l.uses("b"); got != "snapshot s1" {
		t.Errorf("b is used by %q", got)
	}
	l.drop(disk1, "l1")
	if got, err := l.unwrap("default", snapshot1, "l1"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("after the first holder: %v", err)
	}
	l.wantProblems()
}

// C3: what was wrapped for one holder opens in no other's place.
func TestRuleC3_SharedDEKIsBoundToItsHolder(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	of := l.dek("default", "", disk1, "l1")
	key := of.CMK.String()
	rec, err := l.ShareDEK(l.ctx(), "default", key, disk1, snapshot1, "l1")
	must(t, err)
	l.put(rec)
	moved := rec
	moved.Blob = of.Blob
	l.put(moved)
	if _, err := l.unwrap("default", snapshot1, "l1"); refusal.CodeOf(err) != refusal.Damaged {
		t.Errorf("the disk's blob opens for the snapshot: %v", err)
	}
	_, err = l.ShareDEK(l.ctx(), "default", key, snapshot1, keystore.Holder{Kind: "disk", ID: "d2"}, "l1")
	wantCode(t, err, refusal.Damaged)
	_, err = l.ShareDEK(l.ctx(), "default", key, disk1, snapshot1, "none")
	wantCode(t, err, refusal.Damaged)
	if _, err := l.ShareDEK(l.ctx(), "default", key, disk1, keystore.Holder{Kind: "snapshot", ID: "a/b"}, "l1"); err == nil {
		t.Error("a holder with a slash in its name")
	}
}

// Both keys have to be usable, and the project to have its rights.
func TestShareDEKNeedsBothKeys(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	l.grant("other")
	l.create("default", "a")
	b := l.create("default", "b").ID
	l.dek("default", "a", disk1, "l1")
	for _, off := range []string{"a", "b"} {
		_, err := l.Disable(l.ctx(), l.request(), "default", off)
		must(t, err)
		_, err = l.ShareDEK(l.ctx(), "default", b, disk1, snapshot1, "l1")
		if r := wantCode(t, err, refusal.KeyForbids); !strings.Contains(r.Message, off+" (") || !strings.Contains(r.Message, "Disabled") {
			t.Errorf("%q names neither key nor state", r.Message)
		}
		_, err = l.Enable(l.ctx(), l.request(), "default", off)
		must(t, err)
	}
	_, err := l.ShareDEK(l.ctx(), "other", b, disk1, snapshot1, "l1")
	wantCode(t, err, refusal.Damaged)
	must(t, l.RevokeGrant(l.ctx(), l.request(), "default"))
	_, err = l.ShareDEK(l.ctx(), "default", b, disk1, snapshot1, "l1")
	wantCode(t, err, refusal.Denied)
}

// Rule A21: what was under a key that is deleted gets no other, though that has the id of the first for an alias; and it is told that the key
// is deleted, not that there is none.
func TestRuleA21_NothingNewUnderADeletedKey(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	gone := l.create("default", "gone").ID
	l.create("default", "stays")
	l.dek("default", "stays", disk1, "l1")
	_, err := l.ScheduleDeletion(l.ctx(), l.request(), "default", "gone", 7)
	must(t, err)
	l.clock.Advance(7 * 24 * 3600e9)
	_, err = l.Delete(l.ctx(), l.request(), "default", "gone")
	must(t, err)
	for range 2 {
		_, err = l.GenerateDEKUnder(l.ctx(), "default", gone, disk1, "l2", 512)
		if r := wantCode(t, err, refusal.KeyForbids); !strings.Contains(r.Message, gone+" is deleted") {
			t.Error(r.Message)
		}
		_, err = l.ShareDEK(l.ctx(), "default", gone, disk1, snapshot1, "l1")
		wantCode(t, err, refusal.KeyForbids)
		if _, err := l.Key(l.ctx(), "default", gone); err != nil {
			l.create("default", gone)
		}
	}
}
