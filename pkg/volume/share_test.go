package volume_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
	"nbdcrypt/pkg/volume"
)

var sharedDisk = volume.Spec{Project: "default", Name: "quorum", Size: 4 * mib, SectorSize: 512, Encrypted: true, Shared: true}

// as attaches the shared disk for somebody.
func (r *rig) as(user string) (volume.Share, error) {
	var made volume.Share
	s := spec("quorum")
	s.By, s.Attached = user, func(_ *volume.Attachment, share volume.Share) { made = share }
	_, err := r.Attach(r.t.Context(), "attach", s)
	return made, err
}

// mustAs is that where it has to work.
func (r *rig) mustAs(user string) volume.Share {
	r.t.Helper()
	made, err := r.as(user)
	must(r.t, err)
	return made
}

// leaves detaches, and tells which attachment ended and whether the keys were wiped.
func (r *rig) leaves(adjust func(*volume.DetachSpec)) (ended string, wiped bool, err error) {
	s := leave("quorum")
	s.Leave = func(_ *volume.Attachment, of volume.Share) { ended = of.ID.String() }
	s.Wiping = func(*volume.Attachment, []volume.LayerKey) { wiped = true }
	adjust(&s)
	_, err = r.Detach(r.t.Context(), "detach", s)
	return ended, wiped, err
}

func deksInMemory() (n int) {
	_, keys := secret.Snapshot()
	for _, k := range keys {
		if k.Kind == "dek" {
			n++
		}
	}
	return n
}

// TestRuleB14_SixteenAttachments: a shared disk is attached up to 16 times, the 17th is refused; its DEK is in memory once, and wiped at
// the last detach. Any other disk refuses the second.
func TestRuleB14_SixteenAttachments(t *testing.T) {
	r := newRig(t)
	if d := r.create(sharedDisk); !d.Shared {
		t.Error("it is not shared")
	}
	before := deksInMemory()
	for i := range 16 {
		r.mustAs(fmt.Sprint("user", i))
	}
	if n := deksInMemory() - before; n != 1 {
		t.Errorf("%d DEKs are in memory", n)
	}
	_, err := r.as("user16")
	wantCode(t, err, refusal.Busy)
	if err == nil || !strings.Contains(err.Error(), "16") {
		t.Errorf("the 17th: %v", err)
	}
	a := r.Attachments()[0]
	_, err = a.Device.WriteAt([]byte("what all see"), 0)
	must(t, err)
	for i := 15; i >= 0; i-- {
		if got := len(r.SharesOf(a)); got != i+1 {
			t.Fatalf("%d attachments, not %d", got, i+1)
		}
		_, wiped, err := r.leaves(func(*volume.DetachSpec) {})
		must(t, err)
		if left := deksInMemory() - before; wiped != (i == 0) || (left == 0) != (i == 0) {
			t.Fatalf("with %d left: wiped %v, %d DEKs in memory", i, wiped, left)
		}
	}
	if d, err := r.Get(t.Context(), "default", "quorum"); err != nil || d.Status != volume.Available || r.records("attachment/") != 0 {
		t.Errorf("after the last: %s, %v, %d records", d.Status, err, r.records("attachment/"))
	}
	r.create(secretDisk)
	r.attach("vault")
	_, err = r.Attach(t.Context(), "attach", spec("vault"))
	wantCode(t, err, refusal.Busy)
}

// TestRuleB14_WhichAttachmentEnds: the caller's newest, the newest of all for who may end all, or the one that is named.
func TestRuleB14_WhichAttachmentEnds(t *testing.T) {
	r := newRig(t)
	r.create(sharedDisk)
	ann1, bob1, ann2, bob2 := r.mustAs("ann"), r.mustAs("bob"), r.mustAs("ann"), r.mustAs("bob")
	by := func(user string) func(*volume.DetachSpec) { return func(s *volume.DetachSpec) { s.By = user } }
	for _, step := range []struct {
		how  func(*volume.DetachSpec)
		ends volume.Share
	}{{by("ann"), ann2}, {func(s *volume.DetachSpec) { s.By, s.Attachment = "ann", bob1.ID.String() }, bob1}, {by(""), bob2}} {
		ended, _, err := r.leaves(step.how)
		if err != nil || ended != step.ends.ID.String() {
			t.Errorf("ended %s of %s: %v", ended, step.ends.By, err)
		}
	}
	if _, _, err := r.leaves(by("bob")); refusal.CodeOf(err) != refusal.NotFound {
		t.Errorf("bob ends what ann has: %v", err)
	}
	_, _, err := r.leaves(func(s *volume.DetachSpec) { s.Attachment = bob1.ID.String() })
	wantCode(t, err, refusal.NotFound)
	if left := r.SharesOf(r.Attachments()[0]); len(left) != 1 || left[0] != ann1 {
		t.Errorf("left: %+v", left)
	}
	if _, wiped, err := r.leaves(func(s *volume.DetachSpec) { s.All = true }); err != nil || !wiped {
		t.Errorf("all: %v, wiped %v", err, wiped)
	}
}

// TestRuleB14_AllOrNoneAreReadOnly: attachments have one export, so that they can't differ in that.
func TestRuleB14_AllOrNoneAreReadOnly(t *testing.T) {
	r := newRig(t)
	r.create(sharedDisk)
	s := spec("quorum")
	for _, first := range []bool{true, false} {
		s.ReadOnly = first
		_, err := r.Attach(t.Context(), "a", s)
		must(t, err)
		_, err = r.Attach(t.Context(), "b", s)
		must(t, err)
		s.ReadOnly = !first
		_, err = r.Attach(t.Context(), "c", s)
		wantCode(t, err, refusal.Busy)
		_, _, err = r.leaves(func(s *volume.DetachSpec) { s.All = true })
		must(t, err)
	}
}

// Rules A15 and B14: each attachment needs the key to be usable; those that are there go on, and the last detach alone asks.
func TestRuleB14_KeyDisabledMeanwhile(t *testing.T) {
	r := newRig(t)
	_, err := r.keys.CreateKey(t.Context(), "k", "default", keystore.KeySpec{Alias: "mine"})
	must(t, err)
	s := sharedDisk
	s.Key = "mine"
	r.create(s)
	r.mustAs("ann")
	r.mustAs("bob")
	_, err = r.keys.Disable(t.Context(), "d", "default", "mine")
	must(t, err)
	_, err = r.as("eve")
	wantCode(t, err, refusal.KeyForbids)
	asked := 0
	ask := func(s *volume.DetachSpec) {
		s.Stranding = func(keystore.Info) error { asked++; return refusal.New(refusal.Confirm, "yes", "it is stranded") }
	}
	if _, _, err = r.leaves(ask); err != nil || asked != 0 {
		t.Errorf("the first of two asks: %v", err)
	}
	_, _, err = r.leaves(ask)
	wantCode(t, err, refusal.Confirm)
	if len(r.Attachments()) != 1 {
		t.Error("it is detached without a yes")
	}
}

// An attachment whose release can't be recorded is taken back, and leaves the others.
func TestRuleB14_UnrecordedReleaseIsTakenBack(t *testing.T) {
	r := newRig(t)
	r.create(sharedDisk)
	first := r.mustAs("ann")
	s := spec("quorum")
	s.Released = func(string, *keystore.KeyVersionRef) error { return errors.New("the log is full") }
	if _, err := r.Attach(t.Context(), "b", s); err == nil {
		t.Fatal("a key was released without a record")
	}
	if left := r.SharesOf(r.Attachments()[0]); len(left) != 1 || left[0] != first {
		t.Errorf("left: %+v", left)
	}
	if got := r.sharesInCatalog(); !slices.Equal(got, []string{first.ID.String()}) {
		t.Errorf("the catalog has %v", got)
	}
}

// sharesInCatalog are the ids of the attachments that the catalog knows.
func (r *rig) sharesInCatalog() (ids []string) {
	must(r.t, r.catalog.View(r.t.Context(), func(c catalog.Reader) error {
		return catalog.Walk(c, "attachment/", func(p catalog.Pair, err error) error {
			for _, part := range strings.Split(string(p.Value), `{"id":"`)[1:] {
				ids = append(ids, part[:36])
			}
			return err
		})
	}))
	return ids
}

// TestRuleB14_CrashEndsAll: a crash ends all attachments at once, which the next one tells of; then the disk is as usable as before.
func TestRuleB14_CrashEndsAll(t *testing.T) {
	r := newRig(t)
	r.create(sharedDisk)
	var made []string
	for _, user := range []string{"ann", "bob", "cyd"} {
		made = append(made, r.mustAs(user).ID.String())
	}
	_, _, err := r.leaves(func(s *volume.DetachSpec) { s.Attachment = made[1] })
	must(t, err)
	if got := r.sharesInCatalog(); !slices.Equal(got, []string{made[0], made[2]}) {
		t.Errorf("the catalog has %v of %v", got, made)
	}
	r.Attachments()[0].Abandon()
	r.restart()
	d, err := r.Get(t.Context(), "default", "quorum")
	if err != nil || d.Status != volume.Available || d.Attachment != nil || len(d.Warnings) != 1 {
		t.Errorf("after the crash: %s, %v, %v", d.Status, d.Warnings, err)
	}
	again := r.mustAs("dan")
	if a := r.Attachments()[0]; len(a.Warnings) != 1 || !strings.Contains(a.Warnings[0], "without a detach") {
		t.Errorf("warnings: %v", a.Warnings)
	}
	if got := r.sharesInCatalog(); !slices.Equal(got, []string{again.ID.String()}) {
		t.Errorf("the catalog has %v", got)
	}
}
