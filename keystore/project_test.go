package keystore_test

import (
	"bytes"
	"strings"
	"testing"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// in has the store be that of another region.
func (l *lab) in(region string) {
	l.t.Helper()
	l.close()
	l.region = region
	l.open()
}

// The end of a project destroys its default keys in every region and takes its grants, and touches no other's; it is refused while there is a key of the
// project's own in any region, or something under a default key, and may be asked again.
func TestEndProject(t *testing.T) {
	l := newLab(t)
	end := func() error { return l.EndProject(l.ctx(), l.request(), "shop") }
	l.grant("default")
	here := l.grant("shop")
	must(t, l.sealed.Update(l.ctx(), l.request(), func(txn catalog.Txn) error { return txn.Put("key-grant/"+here.ID+"/1", []byte("{}")) }))
	l.in("there")
	there := l.grant("shop")
	l.dek("shop", "", disk1, "l1")
	l.in("here")
	if r := wantCode(t, end(), refusal.Busy); !strings.Contains(r.Message, "evs/default") {
		t.Errorf("something is under a default key elsewhere: %s", r.Message)
	}
	l.drop(disk1, "l1")
	l.in("there")
	l.create("shop", "mine")
	l.in("here")
	if r := wantCode(t, end(), refusal.Busy); !strings.Contains(r.Message, "mine") {
		t.Errorf("a key of the project's own is elsewhere: %s", r.Message)
	}
	wantCode(t, l.MayEndProject(l.ctx(), "shop"), refusal.Busy)
	if granted, err := l.Granted(l.ctx(), "shop"); err != nil || !granted {
		t.Errorf("what was refused has taken the grant: %v", err)
	}
	l.in("there")
	_, err := l.ScheduleDeletion(l.ctx(), l.request(), "shop", "mine", 7)
	must(t, err)
	l.clock.Advance(7 * 24 * 3600e9)
	_, err = l.Delete(l.ctx(), l.request(), "shop", "mine")
	must(t, err)
	l.in("here")
	erase := [][]byte{bytes.Clone(l.eraseKey(2)), bytes.Clone(l.eraseKey(3))}
	must(t, end())
	must(t, end())
	for _, name := range []string{"key/shop/" + here.ID, "key/shop/" + there.ID, "grant/here/shop", "grant/there/shop", "alias/here/shop/evs/default",
		"alias/there/shop/evs/default", "key-grant/" + here.ID + "/1"} {
		if l.record(name) != nil {
			t.Errorf("%s is left", name)
		}
	}
	if found := contains(t, l.dir, erase...); len(found) > 0 {
		t.Errorf("erase keys stand in %v", found)
	}
	if n, err := l.CountKeys(l.ctx(), "shop"); err != nil || n != 0 {
		t.Errorf("%d keys are left: %v", n, err)
	}
	l.wantProblems()
	if granted, err := l.Granted(l.ctx(), "default"); err != nil || !granted {
		t.Errorf("the project default has lost its grant: %v", err)
	}
	if l.dek("default", "", disk1, "l1"); l.grant("shop").ID == here.ID {
		t.Error("a later project of that name has the key of before")
	}
}
