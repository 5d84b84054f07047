package volume_test

import (
	"testing"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// A run goes on though daemons are killed, or take the disk back, before they have told it of the attachment that they made for it; nobody else does.
func TestContinuesPastAttachmentsThatNobodyHeardOf(t *testing.T) {
	r := newGuarded(t)
	a := r.Attachments()[0]
	on := func(run string) (*volume.Attachment, error) {
		s := spec("vault")
		s.Continues = &volume.Continues{Disk: a.Disk, Epoch: a.Epoch(), Run: run}
		return r.Attach(t.Context(), "on", s)
	}
	for n := range 4 {
		r.kill()
		r.restart()
		again, err := on("mine")
		must(t, err)
		if r.holdsAll(again, inside()); again.Unclean {
			t.Error("unclean")
		}
		if n == 2 {
			r.undo(again)
		}
	}
	r.kill()
	r.restart()
	for _, run := range []string{"", "another"} {
		_, err := on(run)
		wantCode(t, err, refusal.Damaged)
	}
	again, err := on("mine")
	must(t, err)
	r.undo(again)
	again, err = on("")
	must(t, err)
	r.undo(again)

	_, err = on("mine")
	must(t, err)
	r.kill()
	r.restart()
	r.attach("vault")
	_, err = r.detach("vault")
	must(t, err)
	_, err = on("mine")
	wantCode(t, err, refusal.Damaged)
}

// A rollback is heard of.
func TestContinuesNotPastARollback(t *testing.T) {
	r := newGuarded(t)
	_, err := r.CreateSnapshot(t.Context(), "b", "default", "vault", "before")
	must(t, err)
	a := r.Attachments()[0]
	s := spec("vault")
	s.Continues = &volume.Continues{Disk: a.Disk, Epoch: a.Epoch(), Run: "mine"}
	r.kill()
	r.restart()
	_, err = r.Attach(t.Context(), "on", s)
	must(t, err)
	r.kill()
	r.restart()
	_, err = r.Rollback(t.Context(), "back", "default", "vault", "before")
	must(t, err)
	_, err = r.Attach(t.Context(), "on", s)
	wantCode(t, err, refusal.Damaged)
}
