package volume_test

import (
	"context"
	"strings"
	"syscall"
	"testing"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// What opens an attachment to clients runs before a detach may: no export is left behind by one that comes at that moment.
func TestDetachWaitsForWhatOpensTheExport(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	s := spec("vault")
	opened := false
	s.Attached = func(a *volume.Attachment) {
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
