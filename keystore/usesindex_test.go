package keystore_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

func (l *lab) uses(key string) (ids string) {
	l.t.Helper()
	holders, err := l.Uses(l.ctx(), "default", key)
	must(l.t, err)
	for _, h := range holders {
		ids += h.Kind + " " + h.ID + ", "
	}
	return strings.TrimSuffix(ids, ", ")
}

func (l *lab) drop(h keystore.Holder, layers ...string) {
	l.t.Helper()
	must(l.t, l.sealed.Update(l.ctx(), l.request(), func(t catalog.Txn) error { return keystore.DropDEKs(t, h, layers...) }))
}

// wantNames sees that the catalog has just these records under a prefix.
func (l *lab) wantNames(prefix string, want ...string) {
	l.t.Helper()
	var got []string
	must(l.t, l.raw.View(l.ctx(), func(r catalog.Reader) error {
		pairs, err := r.Scan(prefix, "", 1000)
		for _, p := range pairs {
			got = append(got, p.Key)
		}
		return err
	}))
	if !reflect.DeepEqual(got, want) {
		l.t.Errorf("under %s are %q, want %q", prefix, got, want)
	}
}

func TestRuleC7_UsesFollowTheDEKs(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	a, b := l.create("default", "a"), l.create("default", "b")
	if got := l.uses("a"); got != "" {
		t.Errorf("a new key is used by %q", got)
	}
	l.dek("default", "a", disk1, "l1")
	l.dek("default", "a", disk1, "l2")
	l.dek("default", "a", keystore.Holder{Kind: "snapshot", ID: "s1"}, "l1")
	l.dek("default", "b", keystore.Holder{Kind: "disk", ID: "d2"}, "l3")
	if got := l.uses(a.ID); got != "disk d1, snapshot s1" {
		t.Errorf("a is used by %q", got)
	}
	// A record in the place of another one takes its entry along.
	l.dek("default", "b", disk1, "l2")
	l.dek("default", "b", disk1, "l1")
	if got := l.uses("a"); got != "snapshot s1" {
		t.Errorf("a is used by %q", got)
	}
	if got := l.uses("b"); got != "disk d1, disk d2" {
		t.Errorf("b is used by %q", got)
	}
	l.drop(disk1, "l1", "l2", "never there")
	l.wantNames("uses", "uses", "uses/"+min(a.ID, b.ID)+map[bool]string{true: "/snapshot/s1/l1", false: "/disk/d2/l3"}[a.ID < b.ID],
		"uses/"+max(a.ID, b.ID)+map[bool]string{true: "/disk/d2/l3", false: "/snapshot/s1/l1"}[a.ID < b.ID])
	_, err := l.Uses(l.ctx(), "default", "none")
	wantCode(t, err, refusal.NotFound)
}

// A store from before there was an index gets it when it is opened, however often that is cut off, and damaged records are
// no hindrance.
func TestRuleC7_OldStoreGetsTheIndex(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	key := l.create("default", "a")
	const disks = 70
	for i := range disks {
		l.dek("default", "a", keystore.Holder{Kind: "disk", ID: fmt.Sprintf("d%02d", i)}, "l")
	}
	entries := func() (n int) {
		must(t, l.raw.View(l.ctx(), func(r catalog.Reader) error {
			pairs, err := r.Scan("uses/", "", 1000)
			n = len(pairs)
			return err
		}))
		return n
	}
	for keep := range 3 { // also as far as a start got that was cut off
		must(t, l.raw.Update(l.ctx(), l.request(), func(txn catalog.Txn) error {
			must(t, txn.Delete("uses"))
			for i := keep * 3; i < min(disks, 40); i++ {
				must(t, txn.Delete(fmt.Sprintf("uses/%s/disk/d%02d/l", key.ID, i)))
			}
			return nil
		}))
		if n := entries(); n >= disks {
			t.Fatalf("%d entries are left", n)
		}
		if keep == 2 {
			l.putAt("dek/disk/d00/l", "nonsense")
		}
		l.reopen()
		if n := entries(); n != disks {
			t.Errorf("opened, it has %d entries", n)
		}
	}
	// A damaged record is dropped all the same.
	l.drop(keystore.Holder{Kind: "disk", ID: "d00"}, "l")
	l.wantProblems()
}
