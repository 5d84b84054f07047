package volume_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// keep has Held refuse what has an id, and tells how often it was asked for that.
func (r *rig) keep(id string) (asked *int) {
	asked = new(int)
	r.Service.Held = func(_ catalog.Reader, kind string, of uuid.UUID) error {
		if of.String() != id {
			return nil
		}
		*asked++
		return refusal.New(refusal.Busy, "run `nbdcrypt server detach`", "%s belongs to server web", kind)
	}
	return asked
}

// everything is all that the catalog has.
func (r *rig) everything() map[string]string {
	r.t.Helper()
	all := map[string]string{}
	for _, name := range r.names("") {
		all[name] = string(r.valueOf(name))
	}
	return all
}

// unchanged does something that is refused, and sees that nothing came of it.
func (r *rig) unchanged(what string, do func() error) {
	r.t.Helper()
	records, files := r.everything(), r.files()
	err := do()
	if wantCode(r.t, err, refusal.Busy); err == nil || !strings.Contains(err.Error(), "belongs to server web") {
		r.t.Errorf("%s: %v", what, err)
	}
	now := r.everything()
	for name, value := range records {
		if now[name] != value {
			r.t.Errorf("%s: record %s is another, or gone", what, name)
		}
	}
	if len(now) != len(records) || len(r.files()) != len(files) {
		r.t.Errorf("%s: %d records and %d files, before %d and %d", what, len(now), len(r.files()), len(records), len(files))
	}
}

// What is held is not deleted, on a full file system neither, and nothing of it goes; whoever holds it may delete it.
func TestWhatIsHeldStays(t *testing.T) {
	r := newRig(t)
	d := r.create(secretDisk)
	r.with("vault", func(a *volume.Attachment) { r.writes(a, 'a', 0, mib) })
	r.snap("vault", "before")
	r.create(volume.Spec{Project: "default", Name: "other", Size: mib, SectorSize: 512})
	asked := r.keep(d.ID)
	remove := func() error { return r.Delete(t.Context(), "delete", "default", "vault") }
	r.unchanged("delete", remove)
	whole := r.Service.Catalog
	r.Service.Catalog = crampedCatalog{whole, func() bool { return true }}
	r.unchanged("delete on a full file system", remove)
	r.Service.Catalog = whole
	if *asked != 2 {
		t.Errorf("asked %d times", *asked)
	}
	r.with("vault", func(a *volume.Attachment) { r.reads(a, 'a', 0, mib) })
	must(t, r.Delete(t.Context(), "delete other", "default", "other"))
	must(t, r.DeleteHeld(t.Context(), "delete held", "default", "vault"))
	wantCode(t, r.DeleteHeld(t.Context(), "delete again", "default", d.ID), refusal.NotFound)
	if *asked != 2 || len(r.files()) != 0 || r.records("disk")+r.records("snapshot")+r.records("layer/")+r.records("dek/") != 0 {
		t.Errorf("asked %d times; files %q", *asked, r.files())
	}
}

// The bytes of a held disk stay where the commit of its deletion came to ask and found no room after that.
func TestWhatIsHeldWhileItIsDeletedOnAFullFileSystem(t *testing.T) {
	r := newRig(t)
	d := r.create(secretDisk)
	asked := r.keep(d.ID)
	refuse, times := r.Service.Held, 0
	r.Service.Held = func(c catalog.Reader, kind string, id uuid.UUID) error {
		if times++; times == 1 {
			return nil // somebody holds it from now on
		}
		return refuse(c, kind, id)
	}
	r.Service.Catalog = lateFull{r.Service.Catalog}
	r.unchanged("delete", func() error { return r.Delete(t.Context(), "delete", "default", "vault") })
	if times != 2 || *asked != 1 {
		t.Errorf("asked %d times, refused %d times", times, *asked)
	}
}

// An image that is held stays as it is.
func TestAnImageThatIsHeldStays(t *testing.T) {
	r := newRig(t)
	r.key("mine")
	data := r.golden("secret", true)
	p, err := r.Point(t.Context(), volume.ImageKind, "default", "secret")
	must(t, err)
	remove := func() error {
		_, err := r.DeleteImage(t.Context(), "delete", "default", "secret")
		return err
	}
	r.keep(p.ID)
	r.unchanged("delete", remove)
	r.wantImage("secret", data)
	r.Service.Held = nil
	must(t, remove())
	if left := r.files(); len(left) != 0 {
		t.Errorf("%q are left", left)
	}
}

// mayHold asks as who begins to hold something does.
func (r *rig) mayHold(project, kind, id string) error {
	return r.catalog.View(r.t.Context(), func(c catalog.Reader) error {
		return r.MayHold(c, project, kind, uuid.MustParse(id))
	})
}

// Nobody begins to hold what is not there, is half there or goes.
func TestWhatMayBeHeld(t *testing.T) {
	r := newRig(t)
	d := r.create(secretDisk)
	half := r.create(volume.Spec{Project: "default", Name: "half", Size: mib, SectorSize: 512})
	must(t, r.Cut(t.Context(), "half", volume.Downloading))
	_, err := r.importImage(volume.ImageSpec{Name: "image", Size: mib}, bytes.Repeat([]byte{1}, mib))
	must(t, err)
	image, err := r.Point(t.Context(), volume.ImageKind, "default", "image")
	must(t, err)
	must(t, r.mayHold("default", volume.HolderKind, d.ID))
	must(t, r.mayHold("default", volume.ImageKind, image.ID))
	wantCode(t, r.mayHold("default", volume.HolderKind, half.ID), refusal.Busy)
	for _, kind := range []string{volume.HolderKind, volume.ImageKind} {
		wantCode(t, r.mayHold("default", kind, uuid.NewString()), refusal.NotFound)
	}
	wantCode(t, r.mayHold("elsewhere", volume.HolderKind, d.ID), refusal.NotFound)
	wantCode(t, r.mayHold("elsewhere", volume.ImageKind, image.ID), refusal.NotFound)
	// Who deletes it has it claimed before the commit.
	r.Service.Held = func(c catalog.Reader, kind string, id uuid.UUID) error {
		return r.MayHold(c, "default", kind, id)
	}
	wantCode(t, r.Delete(t.Context(), "delete", "default", "vault"), refusal.Busy)
}

// lateFull is a catalog that finds no room once it has asked what is to be committed.
type lateFull struct{ catalog.Store }

func (l lateFull) Update(ctx context.Context, request string, fn func(catalog.Txn) error) error {
	return l.Store.Update(ctx, request, func(t catalog.Txn) error {
		if err := fn(t); err != nil {
			return err
		}
		return fmt.Errorf("commit: %w", syscall.ENOSPC)
	})
}
