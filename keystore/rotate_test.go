package keystore_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/catalog/catalogtest"
	"nbdcrypt/pkg/refusal"
)

func (l *lab) rotate(key string) keystore.Info {
	l.t.Helper()
	info, err := l.RotateKey(l.ctx(), l.request(), "default", key)
	must(l.t, err)
	return info
}

// due names what the calendar has until now.
func (l *lab) due() (list []keystore.Due) { return l.Due(l.clock.Now()) }

func TestRuleB6_RotationKeepsOldVersions(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	l.create("default", "mine")
	var deks [][]byte
	var records []keystore.Record
	for i := range 4 {
		h := keystore.Holder{Kind: "disk", ID: fmt.Sprint("d", i)}
		rec := l.dek("default", "mine", h, "l")
		if int(rec.CMKVersion) != i+1 {
			t.Errorf("after %d rotations a DEK has version %d", i, rec.CMKVersion)
		}
		dek, err := l.unwrap("default", h, "l")
		must(t, err)
		deks, records = append(deks, dek), append(records, rec)
		if info := l.rotate("mine"); info.Version != i+2 {
			t.Errorf("rotated, it has version %d", info.Version)
		}
	}
	l.reopen()
	for i, rec := range records {
		if dek, err := l.unwrap("default", rec.Holder, "l"); err != nil || !bytes.Equal(dek, deks[i]) {
			t.Errorf("disk %d opens otherwise: %v", i, err)
		}
		must(t, l.sealed.View(l.ctx(), func(r catalog.Reader) error {
			b, err := r.Get("dek/disk/" + rec.Holder.ID + "/l")
			var now keystore.Record
			if json.Unmarshal(b, &now) != nil || !bytes.Equal(now.Blob, rec.Blob) {
				t.Errorf("disk %d was wrapped anew", i)
			}
			return err
		}))
	}
	l.wantProblems()
}

func TestRuleB6_WhoCantBeRotated(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	l.create("default", "off")
	l.create("default", "going")
	_, err := l.CreateKey(l.ctx(), l.request(), "default", keystore.KeySpec{Alias: "theirs", Origin: keystore.OriginImported})
	must(t, err)
	_, err = l.Disable(l.ctx(), l.request(), "default", "off")
	must(t, err)
	_, err = l.ScheduleDeletion(l.ctx(), l.request(), "default", "going", 7)
	must(t, err)
	for key, code := range map[string]refusal.Code{"evs/default": refusal.KeyForbids, "off": refusal.KeyForbids, "going": refusal.KeyForbids,
		"theirs": refusal.KeyForbids, "none": refusal.NotFound} {
		_, err := l.RotateKey(l.ctx(), l.request(), "default", key)
		wantCode(t, err, code)
		_, err = l.SetRotation(l.ctx(), l.request(), "default", key, 30)
		if key != "off" { // it catches up when it is enabled
			wantCode(t, err, code)
		}
	}
	for _, days := range []int{-1, 1, 29, 366} {
		_, err := l.SetRotation(l.ctx(), l.request(), "default", "off", days)
		wantCode(t, err, refusal.Usage)
	}
	for _, days := range []int{30, 365, 0} {
		if info, err := l.SetRotation(l.ctx(), l.request(), "default", "off", days); err != nil || info.RotationDays != days {
			t.Errorf("%d days: %+v, %v", days, info, err)
		}
	}
}

// A key is due once its days are over, is rotated once however late that is, and one that was disabled catches up with one rotation.
func TestRuleB6_RotationIsDue(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	key := l.create("default", "mine")
	_, err := l.SetRotation(l.ctx(), l.request(), "default", "mine", 30)
	must(t, err)
	day := 24 * time.Hour
	l.clock.Advance(30*day - time.Second)
	if due := l.due(); len(due) != 0 {
		t.Errorf("too early, due is %+v", due)
	}
	l.clock.Advance(time.Second)
	l.reopen()
	if due := l.due(); len(due) != 1 || due[0].Kind != keystore.DueRotation || due[0].ID != key.ID {
		t.Fatalf("due is %+v", due)
	}
	_, err = l.Disable(l.ctx(), l.request(), "default", "mine")
	must(t, err)
	l.clock.Advance(300 * day)
	if due := l.due(); len(due) != 0 {
		t.Errorf("disabled, due is %+v", due)
	}
	_, err = l.Enable(l.ctx(), l.request(), "default", "mine")
	must(t, err)
	if due := l.due(); len(due) != 1 {
		t.Fatalf("enabled, due is %+v", due)
	}
	l.rotate("mine")
	if due := l.due(); len(due) != 0 {
		t.Errorf("rotated, due is %+v", due)
	}
	// Another number of days counts from the last rotation; turned off and on, from now.
	l.clock.Advance(40 * day)
	_, err = l.SetRotation(l.ctx(), l.request(), "default", "mine", 50)
	must(t, err)
	if due := l.Due(l.clock.Now().Add(10 * day)); len(due) != 1 || len(l.due()) != 0 {
		t.Errorf("in ten days due is %+v", due)
	}
	for _, days := range []int{0, 30} {
		_, err = l.SetRotation(l.ctx(), l.request(), "default", "mine", days)
		must(t, err)
	}
	if due := l.Due(l.clock.Now().Add(30*day - 1)); len(due) != 0 {
		t.Errorf("turned on anew, due is %+v", due)
	}
}

// The record of a key holds as many versions as there can be, with all that a person may write on it.
func TestRuleB6_AtMost250Versions(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	spec := keystore.KeySpec{Alias: strings.Repeat("a", 255), Description: strings.Repeat("d", keystore.MaxDescription), Tags: map[string]string{}}
	for i := range keystore.MaxTags {
		spec.Tags[fmt.Sprintf("%0128d", i)] = strings.Repeat("v", keystore.MaxTagValue)
	}
	key, err := l.CreateKey(l.ctx(), l.request(), "default", spec)
	must(t, err)
	for range keystore.MaxVersions - 1 {
		l.clock.Advance(time.Nanosecond)
		l.rotate(key.ID)
	}
	_, err = l.RotateKey(l.ctx(), l.request(), "default", key.ID)
	if r := wantCode(t, err, refusal.KeyForbids); !strings.Contains(r.Message, "250") {
		t.Errorf("%q names no number", r.Message)
	}
	_, err = l.SetRotation(l.ctx(), l.request(), "default", key.ID, 30)
	must(t, err)
	if due := l.Due(l.clock.Now().AddDate(1, 0, 0)); len(due) != 0 {
		t.Errorf("due is %+v", due)
	}
	l.dek("default", key.ID, disk1, "l")
	l.wantProblems()
}

func TestRotationOnceARequest(t *testing.T) {
	l := newLab(t)
	var unknown *catalogtest.Unknown
	l.wrap = func(s catalog.Store) catalog.Store {
		unknown = catalogtest.NewUnknown(s)
		return unknown
	}
	l.reopen()
	l.grant("default")
	l.create("default", "mine")
	for i, commits := range []bool{true, false} {
		unknown.Inject(commits)
		for range 2 {
			info, err := l.RotateKey(l.ctx(), fmt.Sprint("once", i), "default", "mine")
			if err != nil || info.Version != i+2 {
				t.Errorf("it has version %d, %v", info.Version, err)
			}
		}
	}
	l.wantProblems()
}
