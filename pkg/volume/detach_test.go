package volume_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
	"nbdcrypt/xts"
)

// What opens an attachment to clients runs before a detach may: no export is left behind by one that comes at that moment.
func TestDetachWaitsForWhatOpensTheExport(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	s := spec("vault")
	opened := false
	s.Attached = func(*volume.Attachment, volume.Share) {
		opened = true
		_, err := r.detach("vault")
		wantCode(t, err, refusal.Busy)
	}
	_, err := r.Attach(t.Context(), "a", s)
	must(t, err)
	if !opened {
		t.Error("nobody was told of the attachment")
	}
	_, err = r.detach("vault")
	must(t, err)
}

// TestRuleA13_KeysAreShownAndWiped: whoever asks gets to see the schedules of each layer right before they are wiped, when a disk
// is detached and when its attach fails with the key unwrapped.
func TestRuleA13_KeysAreShownAndWiped(t *testing.T) {
	r := newRig(t)
	d := r.create(secretDisk)
	_, escrowed, err := r.Escrow(t.Context(), "default", "vault", func(keystore.KeyVersionRef) error { return nil })
	must(t, err)
	defer volume.DestroyAll(escrowed)
	var lent [][]byte
	wiping := func(a *volume.Attachment, keys []volume.LayerKey) {
		if a.Disk.String() != d.ID || len(keys) != 1 || keys[0].Layer != d.Layers[0].ID || len(keys[0].Schedules) != xts.Size ||
			!bytes.HasPrefix(keys[0].Schedules, escrowed[0].Key.Bytes()[:16]) {
			t.Errorf("disk %s shows %d keys", a.Disk, len(keys))
		}
		lent = append(lent, keys[0].Schedules)
	}
	out := leave("vault")
	out.Wiping = wiping
	r.attach("vault")
	_, err = r.Detach(t.Context(), "detach", out)
	must(t, err)
	in := spec("vault")
	in.Wiping = wiping
	in.Released = func(string, *keystore.KeyVersionRef) error { return errors.New("the log is full") }
	if _, err := r.Attach(t.Context(), "fails", in); err == nil {
		t.Error("attached without a record")
	}
	if len(lent) != 2 {
		t.Fatalf("keys were shown %d times", len(lent))
	}
	for i, b := range lent {
		if !bytes.Equal(b, make([]byte, len(b))) {
			t.Errorf("time %d: the key is still there", i)
		}
	}
}

// A plain disk has no keys to show.
func TestPlainDiskShowsNoKeys(t *testing.T) {
	r := newRig(t)
	plain := secretDisk
	plain.Encrypted = false
	r.create(plain)
	r.attach("vault")
	out := leave("vault")
	out.Wiping = func(*volume.Attachment, []volume.LayerKey) { t.Error("a plain disk shows keys") }
	_, err := r.Detach(t.Context(), "detach", out)
	must(t, err)
}

// fullCatalog refuses every change.
type fullCatalog struct{ catalog.Store }

func (fullCatalog) Update(context.Context, string, func(catalog.Txn) error) error {
	return syscall.ENOSPC
}

// A detach that the catalog has no room to note is done all the same, and says what the next attach will say.
func TestDetachWithAFullCatalog(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	r.attach("vault")
	below := r.Catalog
	r.Catalog = fullCatalog{below}
	warnings, err := r.detach("vault")
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "no space") {
		t.Errorf("%v, warnings %q", err, warnings)
	}
	if d, _ := r.Get(t.Context(), "default", "vault"); d.Attachment != nil {
		t.Error("it is attached")
	}
	r.Catalog = below
	if a := r.attach("vault"); len(a.Warnings) != 1 {
		t.Errorf("warnings: %q", a.Warnings)
	}
}

// A host that was renamed, or is gone, keeps nobody from the disk for ever: it can be taken over, and attach then warns.
func TestAttachmentOfAnotherHost(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	r.attach("vault").Abandon()
	r.restart()
	r.Host = "renamed"
	_, err := r.Attach(t.Context(), "a", spec("vault"))
	wantCode(t, err, refusal.Busy)
	if host, err := r.Elsewhere(t.Context(), "default", "vault"); host != "here" || err != nil {
		t.Errorf("elsewhere: %q, %v", host, err)
	}
	must(t, r.Seize(t.Context(), "seize", "default", "vault"))
	if host, err := r.Elsewhere(t.Context(), "default", "vault"); host != "" || err != nil {
		t.Errorf("elsewhere after that: %q, %v", host, err)
	}
	if a := r.attach("vault"); len(a.Warnings) != 1 {
		t.Errorf("warnings: %q", a.Warnings)
	}
}
