package keystore_test

import (
	"bytes"
	"strings"
	"testing"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// commitRewrap puts what Rewrap made in its place.
func (l *lab) commitRewrap(w keystore.Rewrapped) error {
	return l.sealed.Update(l.ctx(), l.request(), func(t catalog.Txn) error { return l.ReplaceDEK(t, w) })
}

func (l *lab) rewrap(key string) keystore.Rewrapped {
	l.t.Helper()
	w, needed, err := l.Rewrap(l.ctx(), "default", key, disk1, "l1")
	must(l.t, err)
	if !needed {
		l.t.Fatalf("under %s there was nothing to do", key)
	}
	return w
}

func TestRuleC5_RewrapKeepsTheDEK(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	l.create("default", "a")
	b := l.create("default", "b")
	first := l.dek("default", "a", disk1, "l1")
	dek, err := l.unwrap("default", disk1, "l1")
	must(t, err)
	if _, needed, err := l.Rewrap(l.ctx(), "default", "a", disk1, "l1"); needed || err != nil {
		t.Errorf("under the newest version already: %v, %v", needed, err)
	}
	l.rotate("a")
	for _, c := range []struct {
		to      string
		version uint32
	}{{"a", 2}, {b.ID, 1}, {"evs/default", 1}, {"a", 2}} {
		w := l.rewrap(c.to)
		if w.New.CMKVersion != c.version || bytes.Equal(w.New.Blob, w.Old.Blob) {
			t.Errorf("to %s: version %d", c.to, w.New.CMKVersion)
		}
		// Until it is committed nothing has changed.
		if again, err := l.unwrap("default", disk1, "l1"); err != nil || !bytes.Equal(again, dek) {
			t.Errorf("to %s, not committed: %v", c.to, err)
		}
		must(t, l.commitRewrap(w))
		if again, err := l.unwrap("default", disk1, "l1"); err != nil || !bytes.Equal(again, dek) {
			t.Errorf("to %s: %v", c.to, err)
		}
		if got := l.uses(c.to); got != "disk d1" {
			t.Errorf("%s is used by %q", c.to, got)
		}
	}
	if got := l.uses("b"); got != "" {
		t.Errorf("b is used by %q", got)
	}
	// The first version's record still opens, were it put back: that version is kept.
	l.put(first)
	if again, err := l.unwrap("default", disk1, "l1"); err != nil || !bytes.Equal(again, dek) {
		t.Error(err)
	}
	l.wantProblems()
}

// Both keys have to be usable, when the DEK is wrapped and when that is committed.
func TestRuleC5_RewrapNeedsBothKeys(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	l.create("default", "a")
	l.create("default", "b")
	l.dek("default", "a", disk1, "l1")
	for _, off := range []string{"a", "b"} {
		_, err := l.Disable(l.ctx(), l.request(), "default", off)
		must(t, err)
		_, _, err = l.Rewrap(l.ctx(), "default", "b", disk1, "l1")
		if r := wantCode(t, err, refusal.KeyForbids); !strings.Contains(r.Message, off+" (") || !strings.Contains(r.Message, "Disabled") {
			t.Errorf("%q names neither key nor state", r.Message)
		}
		_, err = l.Enable(l.ctx(), l.request(), "default", off)
		must(t, err)
	}
	_, _, err := l.Rewrap(l.ctx(), "default", "none", disk1, "l1")
	wantCode(t, err, refusal.NotFound)
	w := l.rewrap("b")
	_, err = l.Disable(l.ctx(), l.request(), "default", "b")
	must(t, err)
	wantCode(t, l.commitRewrap(w), refusal.KeyForbids)
	_, err = l.Enable(l.ctx(), l.request(), "default", "b")
	must(t, err)
	must(t, l.commitRewrap(w))
	wantCode(t, l.commitRewrap(w), refusal.Busy)
	must(t, l.RevokeGrant(l.ctx(), l.request(), "default"))
	_, _, err = l.Rewrap(l.ctx(), "default", "a", disk1, "l1")
	wantCode(t, err, refusal.Denied)
}

// What is damaged is not wrapped anew, and stays as it is for whoever mends it.
func TestRuleC5_RewrapOfDamage(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	l.grant("b")
	l.create("default", "a")
	rec := l.dek("default", "", disk1, "l1")
	rec.Blob[20] ^= 1
	l.put(rec)
	_, _, err := l.Rewrap(l.ctx(), "default", "a", disk1, "l1")
	wantCode(t, err, refusal.Damaged)
	_, _, err = l.Rewrap(l.ctx(), "b", "", disk1, "l1")
	wantCode(t, err, refusal.Damaged)
	_, _, err = l.Rewrap(l.ctx(), "default", "a", disk1, "none")
	wantCode(t, err, refusal.Damaged)
}
