package volume_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// undo takes an attachment back, and tells whether its keys were shown before they were wiped.
func (r *rig) undo(a *volume.Attachment) (shown bool) {
	r.t.Helper()
	must(r.t, r.Undo(r.t.Context(), "undo", a, func(*volume.Attachment, []volume.LayerKey) { shown = true }))
	return shown
}

// An attachment that is taken back leaves no key, no record, and the disk to whoever comes: also to who goes on from the one before.
func TestUndoIsAsIfNobodyHadCome(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	first := r.attach("vault")
	from := volume.Continues{Disk: first.Disk, Epoch: first.Epoch()}
	_, err := first.Device.WriteAt([]byte("what it left"), 4096)
	must(t, err)
	_, err = r.detach("vault")
	must(t, err)
	before := deksInMemory()
	for range 3 {
		s := spec("vault")
		s.Continues = &from
		a, err := r.Attach(t.Context(), "on", s)
		must(t, err)
		if !r.undo(a) {
			t.Error("nobody was shown the keys")
		}
		if n := deksInMemory() - before; n != 0 {
			t.Errorf("%d DEKs are in memory", n)
		}
		if d, _ := r.Get(t.Context(), "default", "vault"); d.Status != volume.Available || r.records("attachment/") != 0 {
			t.Errorf("status %v, %d attachment records", d.Status, r.records("attachment/"))
		}
		if r.undo(a) {
			t.Error("undone twice")
		}
	}
	s := spec("vault")
	s.Continues = &from
	a, err := r.Attach(t.Context(), "on", s)
	must(t, err)
	got := make([]byte, 12)
	if _, err := a.Device.ReadAt(got, 4096); err != nil || string(got) != "what it left" {
		t.Errorf("it holds %q, %v", got, err)
	}
}

// What a run before may have lost is told to the next as it would have been without the attachment that was taken back.
func TestUndoKeepsWhatIsToBeTold(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	r.attach("vault").Abandon()
	r.restart()
	for range 2 {
		a := r.attach("vault")
		if len(a.Warnings) != 1 || !strings.Contains(a.Warnings[0], "without a detach") {
			t.Errorf("warnings: %v", a.Warnings)
		}
		r.undo(a)
	}
	if left, _, err := r.LeftAttached(t.Context()); err != nil || len(left) != 0 && left[0] != "vault" {
		t.Errorf("left attached: %v %v", left, err)
	}
	r.restart()
	if a := r.attach("vault"); len(a.Warnings) != 1 {
		t.Errorf("after a restart: %v", a.Warnings)
	}
}

// A killed run whose writes were recovered goes on, also after an attachment in between was taken back.
func TestUndoAfterARecovery(t *testing.T) {
	r := newGuarded(t)
	a := r.Attachments()[0]
	from := volume.Continues{Disk: a.Disk, Epoch: a.Epoch()}
	r.kill()
	r.restart()
	for range 2 {
		s := spec("vault")
		s.Continues = &from
		a, err := r.Attach(t.Context(), "on", s)
		must(t, err)
		r.holdsAll(a, inside())
		r.undo(a)
	}
	r.kill()
	r.restart()
	s := spec("vault")
	s.Continues = &from
	a, err := r.Attach(t.Context(), "on", s)
	must(t, err)
	r.holdsAll(a, inside())
}

// A snapshot of a disk while it was attached in vain keeps its place, and changes nothing for who goes on.
func TestUndoAfterASnapshot(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	a := r.attach("vault")
	from := volume.Continues{Disk: a.Disk, Epoch: a.Epoch()}
	_, err := a.Device.WriteAt([]byte("below"), 0)
	must(t, err)
	_, err = r.detach("vault")
	must(t, err)
	a = r.attach("vault")
	_, err = r.CreateSnapshot(t.Context(), "s", "default", "vault", "between")
	must(t, err)
	r.undo(a)
	s := spec("vault")
	s.Continues = &from
	a, err = r.Attach(t.Context(), "on", s)
	must(t, err)
	got := make([]byte, 5)
	if _, err := a.Device.ReadAt(got, 0); err != nil || string(got) != "below" {
		t.Errorf("it holds %q, %v", got, err)
	}
}

// Whoever works on the disk is waited for; a context that ends leaves it attached.
func TestUndoWaitsItsTurn(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	opened, go_ := make(chan struct{}), make(chan struct{})
	made := make(chan *volume.Attachment, 1)
	go func() {
		s := spec("vault")
		s.Attached = func(a *volume.Attachment, _ volume.Share) { made <- a; close(opened); <-go_ }
		_, _ = r.Attach(context.Background(), "attach", s)
	}()
	<-opened
	a := <-made
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Undo(ctx, "undo", a, nil) }()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it ends with %v", err)
	}
	go func() { ended <- r.Undo(t.Context(), "undo", a, nil) }()
	close(go_)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := r.detach("vault"); refusal.CodeOf(err) != refusal.Busy {
		t.Errorf("it is attached: %v", err)
	}
}

// What somebody else has attached since is left alone, by who takes his own back and by who detaches just that, and can be detached.
func TestUndoOfWhatAnotherHasByNow(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	a := r.attach("vault")
	_, err := r.detach("vault")
	must(t, err)
	other := r.attach("vault")
	if r.undo(a) {
		t.Error("it wiped keys")
	}
	only := leave("vault")
	only.Only = a
	_, err = r.Detach(t.Context(), "only", only)
	must(t, err)
	if r.attachmentOf("vault") != other {
		t.Error("the other's attachment is gone")
	}
	_, err = r.detach("vault")
	must(t, err)
}

// A key that was disabled meanwhile does not keep an attachment from being taken back.
func TestUndoNeedsNoKey(t *testing.T) {
	r := newRig(t)
	key, err := r.keys.CreateKey(t.Context(), "k", "default", keystore.KeySpec{Alias: "own"})
	must(t, err)
	under := secretDisk
	under.Key = key.ID
	r.create(under)
	a := r.attach("vault")
	_, err = r.keys.Disable(t.Context(), "off", "default", key.ID)
	must(t, err)
	r.undo(a)
	if _, err := r.Attach(t.Context(), "a", spec("vault")); refusal.CodeOf(err) != refusal.KeyForbids {
		t.Errorf("attached: %v", err)
	}
}

// Who looks at a disk while it is detached sees it before or after that.
func TestLookingWhileItIsDetached(t *testing.T) {
	r := newGuarded(t)
	stop, looked := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(looked)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := r.Get(context.Background(), "default", "vault"); err != nil {
				t.Error(err)
			}
		}
	}()
	for range 20 {
		_, err := r.detach("vault")
		must(t, err)
		r.attach("vault")
	}
	close(stop)
	<-looked
}
