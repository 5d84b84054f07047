package volume_test

import (
	"testing"

	"github.com/google/uuid"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// A disk has the id that was planned for it. The same request finds it, in use too; an id that another disk has is refused.
func TestPlannedIDs(t *testing.T) {
	r := newRig(t)
	r.golden("open", false)
	for name, spec := range map[string]volume.Spec{"empty": secretDisk, "linked": ofImage("linked", "open"), "copied": copied("copied", "open", "")} {
		spec.Name, spec.ID = name, uuid.New()
		for range 2 {
			d, err := r.make("make "+name, spec)
			if must(t, err); d.ID != spec.ID.String() || d.Status == volume.Error {
				t.Errorf("%s: %+v", name, d)
			}
		}
		r.attach(name)
		if d, err := r.make("make "+name, spec); err != nil || d.ID != spec.ID.String() || d.Status != volume.InUse {
			t.Errorf("%s in use: %+v, %v", name, d, err)
		}
		_, err := r.make("another request", spec)
		wantCode(t, err, refusal.Busy)
		other := spec
		other.Name = name + "-2"
		for _, request := range []string{"make " + name, "a third"} {
			_, err = r.make(request, other)
			wantCode(t, err, refusal.Busy)
		}
		again := spec
		again.ID = uuid.New()
		if d, err := r.make("make "+name, again); err != nil || d.ID != spec.ID.String() {
			t.Errorf("%s with another plan: %+v, %v", name, d, err)
		}
		_, err = r.detach(name)
		must(t, err)
	}
	if n := r.records("disk/"); n != 3 {
		t.Errorf("%d disks", n)
	}
}

// A disk whose making ended half-way is no answer to the request that made it.
func TestAHalfMadeDiskIsNoAnswer(t *testing.T) {
	r := newRig(t)
	s := secretDisk
	s.ID = uuid.New()
	r.create(s)
	must(t, r.Cut(t.Context(), "vault", volume.Creating))
	_, err := r.Create(t.Context(), "create vault", s)
	wantCode(t, err, refusal.Busy)
	r.restart() // which removes it
	if d := r.create(s); d.ID != s.ID.String() || d.Status != volume.Available {
		t.Errorf("%+v", d)
	}
}

// Bootable is what was asked for when the disk was made, and of nothing that is made of it.
func TestBootableDisks(t *testing.T) {
	r := newRig(t)
	r.golden("open", false)
	for name, spec := range map[string]volume.Spec{"empty": secretDisk, "linked": ofImage("linked", "open"), "copied": copied("copied", "open", "")} {
		spec.Name, spec.Bootable = name, true
		_, err := r.make("make "+name, spec)
		must(t, err)
		r.snap(name, name)
		r.linked(name, name+"-linked")
		_, err = r.restore(r.backup(name, name).Name, volume.Spec{Project: "default", Name: name + "-restored", SectorSize: 512})
		must(t, err)
	}
	r.restart()
	must(t, r.List(t.Context(), "default", true, func(d volume.Disk) error {
		if want := d.Name == "empty" || d.Name == "linked" || d.Name == "copied"; d.Bootable != want {
			t.Errorf("disk %s is bootable: %v", d.Name, d.Bootable)
		}
		return nil
	}))
	if d, err := r.Rollback(t.Context(), "roll back", "default", "empty", "empty"); err != nil || !d.Bootable {
		t.Errorf("%+v, %v", d, err)
	}
}
