package volume_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// writes writes n bytes of b at off.
func (r *rig) writes(a *volume.Attachment, b byte, off, n int64) {
	r.t.Helper()
	_, err := a.Device.WriteAt(bytes.Repeat([]byte{b}, int(n)), off)
	must(r.t, err)
}

// reads tells whether n bytes at off are all b.
func (r *rig) reads(a *volume.Attachment, b byte, off, n int64) {
	r.t.Helper()
	got := make([]byte, n)
	_, err := a.Device.ReadAt(got, off)
	must(r.t, err)
	if !bytes.Equal(got, bytes.Repeat([]byte{b}, int(n))) {
		r.t.Errorf("disk %s at %d does not hold %q: %.20q", a.Name, off, b, got)
	}
}

// with attaches a disk for what f does with it.
func (r *rig) with(disk string, f func(*volume.Attachment)) {
	r.t.Helper()
	a := r.attach(disk)
	f(a)
	_, err := r.detach(disk)
	must(r.t, err)
}

func (r *rig) snap(disk, name string) volume.Point {
	r.t.Helper()
	p, err := r.CreateSnapshot(r.t.Context(), "snapshot "+name, "default", disk, name)
	must(r.t, err)
	return p
}

func (r *rig) linked(snapshot, name string) volume.Disk {
	r.t.Helper()
	return r.create(volume.Spec{Project: "default", Name: name, From: &volume.From{Kind: volume.SnapshotKind, Ref: snapshot}})
}

var plainDisk = volume.Spec{Project: "default", Name: "vault", Size: 4 * mib, SectorSize: 4096}

// both runs a test with an encrypted disk and with a plain one, both called vault.
func both(t *testing.T, f func(t *testing.T, r *rig)) {
	for _, s := range []volume.Spec{secretDisk, plainDisk} {
		t.Run(map[bool]string{true: "encrypted", false: "plain"}[s.Encrypted], func(t *testing.T) {
			r := newRig(t)
			r.create(s)
			f(t, r)
		})
	}
}

// A snapshot holds what was answered before it, whatever is written later: of a disk that is attached, and of one that is not.
func TestSnapshotHoldsWhatTheDiskHeld(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		a := r.attach("vault")
		r.writes(a, 'a', 0, 3*mib)
		r.snap("vault", "one")
		r.writes(a, 'b', mib, mib)
		must(t, a.Device.TrimAt(2*mib, mib))
		r.reads(a, 'a', 0, mib)
		r.reads(a, 'b', mib, mib)
		r.reads(a, 0, 2*mib, 2*mib)
		_, err := r.detach("vault")
		must(t, err)
		r.snap("vault", "two")
		r.restart()
		r.with("vault", func(a *volume.Attachment) {
			r.reads(a, 'a', 0, mib)
			r.reads(a, 'b', mib, mib)
			r.writes(a, 'c', 0, 4*mib)
		})
		r.linked("one", "first")
		r.linked("two", "second")
		r.with("first", func(a *volume.Attachment) {
			r.reads(a, 'a', 0, 3*mib)
			r.reads(a, 0, 3*mib, mib)
		})
		r.with("second", func(a *volume.Attachment) {
			r.reads(a, 'a', 0, mib)
			r.reads(a, 'b', mib, mib)
			r.reads(a, 0, 2*mib, 2*mib)
		})
		r.with("vault", func(a *volume.Attachment) { r.reads(a, 'c', 0, 4*mib) })
		r.cleaned()
	})
}

// Disks made from one snapshot have layers of their own: what one writes no other sees, and their ciphertext differs.
func TestLinkedDisksAreApart(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.with("vault", func(a *volume.Attachment) { r.writes(a, 'a', 0, mib) })
		r.snap("vault", "one")
		x, y := r.linked("one", "x"), r.linked("one", "y")
		ax, ay := r.attach("x"), r.attach("y")
		r.writes(ax, 's', 0, mib/2)
		r.writes(ay, 's', 0, mib/2)
		r.reads(ax, 'a', mib/2, mib/2)
		// One detaches, the other reads on through what they share.
		_, err := r.detach("x")
		must(t, err)
		r.reads(ay, 'a', mib/2, mib/2)
		_, err = r.detach("y")
		must(t, err)
		cx, cy := r.ciphertext(volume.Disk{Layers: x.Layers[:1]}), r.ciphertext(volume.Disk{Layers: y.Layers[:1]})
		if x.Encrypted == bytes.Equal(cx[:mib/2], cy[:mib/2]) {
			t.Errorf("encrypted=%v, and the same writes are the same bytes: %v", x.Encrypted, !x.Encrypted)
		}
		if len(x.Layers) != 2 || x.Layers[1].ID != y.Layers[1].ID || x.Layers[0].ID == y.Layers[0].ID {
			t.Errorf("layers %v and %v", x.Layers, y.Layers)
		}
		r.cleaned()
	})
}

// cleaned deletes all there is and sees that nothing is left.
func (r *rig) cleaned() {
	r.t.Helper()
	var disks []string
	must(r.t, r.List(r.t.Context(), "default", false, func(d volume.Disk) error { disks = append(disks, d.ID); return nil }))
	for _, id := range disks {
		must(r.t, r.Delete(r.t.Context(), "delete "+id, "default", id))
	}
	left := ""
	for _, prefix := range []string{"disk", "layer/", "dek/", "ref/", "doomed/", "making/", "snapshot", "point-of/", "trim-deks/", "attachment/", "uses/"} {
		if n := r.records(prefix); n > 0 {
			left += fmt.Sprintf(" %d×%s", n, prefix)
		}
	}
	if left != "" || len(r.files()) > 0 {
		r.t.Errorf("left behind:%s, %v", left, r.files())
	}
}

// Rule A27: a disk from a snapshot has the attribute, the key and the sectors of the snapshot's source; asking for others is refused.
func TestRuleA27_DiskFromSnapshot(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.key("other")
		p := r.snap("vault", "one")
		d := r.linked("one", "same")
		if d.Encrypted != p.Encrypted || d.SectorSize != p.SectorSize || d.Size != p.Size || (d.Key == nil) != (p.Key == nil) || d.Key != nil && d.Key.ID != p.Key.ID {
			t.Errorf("%+v from %+v", d, p)
		}
		if d.Source == nil || d.Source.Kind != volume.SnapshotKind || d.Source.Name != "one" || d.Source.ID.String() != p.ID {
			t.Errorf("source %+v", d.Source)
		}
		same, not := p.Encrypted, !p.Encrypted
		of := func(encrypted *bool) *volume.From {
			return &volume.From{Kind: volume.SnapshotKind, Ref: p.ID, Encrypted: encrypted}
		}
		for _, s := range []volume.Spec{{From: of(&not)}, {Key: "other", From: of(&same)}, {Key: "other", From: of(nil)}, {SectorSize: 4608 - p.SectorSize, From: of(nil)},
			{Size: p.Size - int64(p.SectorSize), From: of(nil)}, {Size: p.Size + 1, From: of(nil)}} {
			s.Project, s.Name = "default", "refused"
			_, err := r.Create(t.Context(), "refused", s)
			wantCode(t, err, refusal.Usage)
		}
		asked := volume.Spec{Project: "default", Name: "asked", Size: 8 * mib, SectorSize: p.SectorSize, From: of(&same)}
		if p.Encrypted {
			asked.Key = "evs/default"
		}
		if d = r.create(asked); d.Size != 8*mib {
			t.Errorf("size %d", d.Size)
		}
		r.with("asked", func(a *volume.Attachment) {
			r.writes(a, 'z', 7*mib, mib)
			r.reads(a, 0, 0, 7*mib)
			r.reads(a, 'z', 7*mib, mib)
		})
		if _, err := r.Get(t.Context(), "default", "refused"); refusal.CodeOf(err) != refusal.NotFound {
			t.Errorf("a refused disk is there: %v", err)
		}
		r.cleaned()
	})
}

// Rule A31: a snapshot has its disk's attribute, and the key that the disk has at that moment; of an encrypted disk no plaintext is in any file.
func TestRuleA31_SnapshotIsAsItsDisk(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		known := bytes.Repeat([]byte("known plaintext "), 4096)
		d, err := r.Get(t.Context(), "default", "vault")
		must(t, err)
		a := r.attach("vault")
		_, err = a.Device.WriteAt(known, 4096)
		must(t, err)
		p := r.snap("vault", "one")
		_, err = a.Device.WriteAt(known, 2*mib)
		must(t, err)
		if p.Encrypted != d.Encrypted || p.Size != d.Size || p.SectorSize != d.SectorSize || p.DiskName != "vault" || p.Disk != d.ID || p.Status != volume.Available {
			t.Errorf("%+v of %+v", p, d)
		}
		_, err = r.detach("vault")
		must(t, err)
		d, err = r.Get(t.Context(), "default", "vault")
		must(t, err)
		if found := bytes.Contains(r.ciphertext(d), known[:64]); found == d.Encrypted {
			t.Errorf("encrypted=%v, plaintext in the files: %v", d.Encrypted, found)
		}
		if !d.Encrypted {
			return
		}
		// The snapshot stays under the key of then.
		r.key("other")
		_, _, err = r.Rewrap(t.Context(), "rewrap", "default", "vault", "", "other")
		must(t, err)
		p, err = r.Point(t.Context(), volume.SnapshotKind, "default", "one")
		must(t, err)
		if q := r.snap("vault", "two"); p.Key.Alias != "evs/default" || q.Key.Alias != "other" {
			t.Errorf("the keys are %s and %s", p.Key.Alias, q.Key.Alias)
		}
		r.linked("one", "x")
		r.with("x", func(a *volume.Attachment) {
			got := make([]byte, len(known))
			_, err = a.Device.ReadAt(got, 4096)
			must(t, err)
			if !bytes.Equal(got, known) {
				t.Error("the disk from the snapshot differs")
			}
		})
	})
}

// Rule B11: deleting a disk deletes its snapshots and its keys, and keeps what was made from them.
func TestRuleB11_DeletingADiskDeletesItsSnapshots(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.with("vault", func(a *volume.Attachment) { r.writes(a, 'a', 0, mib) })
		r.snap("vault", "one")
		r.with("vault", func(a *volume.Attachment) { r.writes(a, 'b', 0, mib) })
		r.snap("vault", "two")
		r.linked("one", "x")
		d, err := r.Get(t.Context(), "default", "vault")
		must(t, err)
		must(t, r.Delete(t.Context(), "delete", "default", "vault"))
		for _, name := range []string{"one", "two"} {
			_, err := r.Point(t.Context(), volume.SnapshotKind, "default", name)
			wantCode(t, err, refusal.NotFound)
		}
		if n := r.records("dek/disk/"+d.ID) + r.records("dek/snapshot/") + r.records("uses/snapshot"); n != 0 {
			t.Errorf("%d DEK records of the disk or its snapshots are left", n)
		}
		// The layer of the second snapshot went, that of the first stays for x.
		if n := r.records("layer/"); n != 2 {
			t.Errorf("%d layers", n)
		}
		r.with("x", func(a *volume.Attachment) { r.reads(a, 'a', 0, mib) })
		r.cleaned()
	})
}

// Rule B12: seven snapshots a disk; rolling back only the disk that the snapshot is of, and only when it is available.
func TestRuleB12_SevenSnapshots(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	a := r.attach("vault")
	for i := range 7 {
		r.writes(a, byte('0'+i), 0, 4096)
		r.snap("vault", fmt.Sprint("s", i))
	}
	_, err := r.CreateSnapshot(t.Context(), "eighth", "default", "vault", "s7")
	wantCode(t, err, refusal.Busy)
	r.reads(a, '6', 0, 4096)
	r.writes(a, '7', 0, 4096)
	_, err = r.Rollback(t.Context(), "in use", "default", "vault", "s3")
	wantCode(t, err, refusal.Busy)
	_, err = r.detach("vault")
	must(t, err)
	r.linked("s3", "x")
	_, err = r.Rollback(t.Context(), "another's", "default", "x", "s3")
	wantCode(t, err, refusal.Usage)
	_, err = r.Rollback(t.Context(), "none", "default", "vault", "none")
	wantCode(t, err, refusal.NotFound)
	for _, i := range []int{3, 0, 6, 6} {
		_, err = r.Rollback(t.Context(), fmt.Sprint("to", i), "default", "vault", fmt.Sprint("s", i))
		must(t, err)
		r.with("vault", func(a *volume.Attachment) {
			r.reads(a, byte('0'+i), 0, 4096)
			r.writes(a, 'z', 0, 4096)
		})
	}
	r.with("x", func(a *volume.Attachment) { r.reads(a, '3', 0, 4096) })
	r.cleaned()
}

// A disk that was extended since keeps its size; what is past the snapshot's end reads as zeros.
func TestRuleB12_RollbackKeepsTheSize(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.with("vault", func(a *volume.Attachment) { r.writes(a, 'a', 0, 4*mib) })
		r.snap("vault", "one")
		a := r.attach("vault")
		_, err := r.Extend(t.Context(), "extend", "default", "vault", 6*mib)
		must(t, err)
		r.writes(a, 'b', 3*mib, 3*mib)
		r.snap("vault", "two") // its layer has grown since it was opened
		r.reads(a, 'b', 3*mib, 3*mib)
		_, err = r.detach("vault")
		must(t, err)
		d, err := r.Rollback(t.Context(), "back", "default", "vault", "one")
		must(t, err)
		if d.Size != 6*mib || d.Status != volume.Available {
			t.Errorf("%+v", d)
		}
		r.with("vault", func(a *volume.Attachment) {
			r.reads(a, 'a', 0, 4*mib)
			r.reads(a, 0, 4*mib, 2*mib)
			r.writes(a, 'c', 5*mib, mib)
		})
		_, err = r.Rollback(t.Context(), "forth", "default", "vault", "two")
		must(t, err)
		r.with("vault", func(a *volume.Attachment) { r.reads(a, 'b', 3*mib, 3*mib) })
		r.cleaned()
	})
}

func TestNamesOfSnapshots(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	for _, name := range []string{"", "a/b", "-x", strings.Repeat("n", 129), "0190b5a0-0000-7000-8000-000000000001"} {
		_, err := r.CreateSnapshot(t.Context(), "bad", "default", "vault", name)
		wantCode(t, err, refusal.Usage)
	}
	p := r.snap("vault", "one")
	again, err := r.CreateSnapshot(t.Context(), "snapshot one", "default", "vault", "one") // its answer was lost
	must(t, err)
	if again.ID != p.ID {
		t.Error("the same request made another snapshot")
	}
	_, err = r.CreateSnapshot(t.Context(), "another", "default", "vault", "one")
	wantCode(t, err, refusal.Busy)
	_, err = r.CreateSnapshot(t.Context(), "no disk", "default", "none", "two")
	wantCode(t, err, refusal.NotFound)
	if r.records("snapshot/") != 1 || r.records("layer/") != 2 || r.records("making/") != 0 {
		t.Error("something of what was refused stayed")
	}
	byID, err := r.Point(t.Context(), volume.SnapshotKind, "default", p.ID)
	if err != nil || byID.Name != "one" {
		t.Errorf("by its id: %+v, %v", byID, err)
	}
	_, err = r.Point(t.Context(), volume.SnapshotKind, "other", p.ID)
	wantCode(t, err, refusal.NotFound)
}
