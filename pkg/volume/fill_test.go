package volume_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// disk is a disk with what it has to hold.
type heldDisk struct {
	name  string
	bytes []byte
}

// scribble writes, trims and zeroes at random places of an attached disk.
func (h *heldDisk) scribble(t testing.TB, a *volume.Attachment, rng *rand.Rand, times int) {
	t.Helper()
	for range times {
		off := rng.Int64N(int64(len(h.bytes)) - 1)
		n := min(1+rng.Int64N(64<<10), int64(len(h.bytes))-off)
		part := h.bytes[off : off+n]
		switch rng.IntN(4) {
		case 0:
			must(t, a.Device.TrimAt(off, n))
			clear(part)
		case 1:
			must(t, a.Device.ZeroAt(off, n, rng.IntN(2) == 0))
			clear(part)
		default:
			for i := range part {
				part[i] = byte(rng.Uint32())
			}
			_, err := a.Device.WriteAt(part, off)
			must(t, err)
		}
	}
}

// wantHeld attaches a disk where it is not, and compares all of it.
func (r *rig) wantHeld(h *heldDisk, when string) {
	r.t.Helper()
	a := r.attachmentOf(h.name)
	if a == nil {
		a = r.attach(h.name)
		defer func() { _, err := r.detach(h.name); must(r.t, err) }()
	}
	got := make([]byte, len(h.bytes))
	_, err := a.Device.ReadAt(got, 0)
	must(r.t, err)
	if !bytes.Equal(got, h.bytes) {
		at := 0
		for got[at] == h.bytes[at] {
			at++
		}
		r.t.Fatalf("%s: disk %s differs from byte %d on", when, h.name, at)
	}
}

func (r *rig) attachmentOf(name string) *volume.Attachment {
	for _, a := range r.Attachments() {
		if a.Name == name {
			return a
		}
	}
	return nil
}

// held makes a disk that holds something.
func (r *rig) held(spec volume.Spec, rng *rand.Rand) *heldDisk {
	r.t.Helper()
	r.create(spec)
	h := &heldDisk{spec.Name, make([]byte, spec.Size)}
	h.scribble(r.t, r.attach(spec.Name), rng, 20)
	return h
}

func (r *rig) snapshot(disk, name string) {
	r.t.Helper()
	_, err := r.CreateSnapshot(r.t.Context(), "snapshot "+name, "default", disk, name)
	must(r.t, err)
}

func (r *rig) dropSnapshot(name string) {
	r.t.Helper()
	warnings, err := r.DeleteSnapshot(r.t.Context(), "delete "+name, "default", name, volume.Work{})
	must(r.t, err)
	if len(warnings) > 0 {
		r.t.Errorf("deleting %s: %v", name, warnings)
	}
}

// layersOf is how many layers a disk has.
func (r *rig) layersOf(name string) int {
	r.t.Helper()
	d, err := r.Get(r.t.Context(), "default", name)
	must(r.t, err)
	return len(d.Layers)
}

func (r *rig) wantLayers(name string, n int) {
	r.t.Helper()
	if got := r.layersOf(name); got != n {
		r.t.Errorf("disk %s has %d layers, want %d", name, got, n)
	}
}

// wantTidy tells that nothing is left of work that is done: as many layers, files and DEK records as there should be.
func (r *rig) wantTidy(layers, deks int) {
	r.t.Helper()
	if got := len(r.files()); got != 2*layers {
		r.t.Errorf("%d files in the pool, want %d", got, 2*layers)
	}
	if got := r.records("layer/"); got != layers {
		r.t.Errorf("%d layer records, want %d", got, layers)
	}
	if got := r.records("dek/"); got != deks {
		r.t.Errorf("%d DEK records, want %d", got, deks)
	}
	for _, prefix := range []string{"merge/", "doomed/", "making/", "trim-deks/"} {
		if got := r.records(prefix); got != 0 {
			r.t.Errorf("%d records %s are left", got, prefix)
		}
	}
}

var kinds = []volume.Spec{
	{Project: "default", Name: "vault", Size: 2*mib + 512, SectorSize: 512, Encrypted: true},
	{Project: "default", Name: "plain", Size: 2 * mib, SectorSize: 4096},
}

// The three ways in which a snapshot's layer goes, attached and not: copied into the top, into a new layer, and dropped where all of it is hidden.
func TestSnapshotDeleteGivesBack(t *testing.T) {
	for _, spec := range kinds {
		for _, attached := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s attached=%v", spec.Name, attached), func(t *testing.T) {
				r, rng := newRig(t), rand.New(rand.NewPCG(1, 2))
				h := r.held(spec, rng)
				for _, name := range []string{"s1", "s2", "s3"} {
					r.snapshot(spec.Name, name)
					h.scribble(t, r.attachmentOf(spec.Name), rng, 5)
				}
				dek := map[bool]int{true: 1}[spec.Encrypted]
				r.wantTidy(4, dek*(4+1+2+3))
				if !attached {
					_, err := r.detach(spec.Name)
					must(t, err)
				}
				r.dropSnapshot("s1") // s2's layer takes it
				r.wantHeld(h, "after s1")
				r.wantLayers(spec.Name, 3)
				r.wantTidy(3, dek*(3+1+2))
				r.dropSnapshot("s3") // the top takes it
				r.wantHeld(h, "after s3")
				r.wantLayers(spec.Name, 2)
				r.wantTidy(2, dek*(2+1))
				if attached {
					_, err := r.detach(spec.Name)
					must(t, err)
				}
				r.restart()
				r.wantHeld(h, "after a restart")
				r.dropSnapshot("s2")
				r.wantHeld(h, "after s2")
				r.wantTidy(1, dek)
			})
		}
	}
}

// A layer that is all hidden goes without a copy, and so without a key. Zeros that hide what stands further down are not nothing.
func TestHiddenLayerGoesWithoutACopy(t *testing.T) {
	r, rng := newRig(t), rand.New(rand.NewPCG(7, 8))
	_, err := r.keys.CreateKey(t.Context(), "k", "default", keystore.KeySpec{Alias: "mine"})
	must(t, err)
	spec := kinds[0]
	spec.Key = "mine"
	h := r.held(spec, rng)
	a := r.attachmentOf("vault")
	write := func(off int64, b byte) {
		part := h.bytes[off : off+4096]
		for i := range part {
			part[i] = b
		}
		_, err := a.Device.WriteAt(part, off)
		must(t, err)
	}
	write(0, 1)
	write(8192, 1)
	r.snapshot("vault", "s1")
	write(0, 2)
	r.snapshot("vault", "s2") // its layer is hidden by that of s3
	write(0, 3)
	r.snapshot("vault", "s3")
	must(t, a.Device.TrimAt(8192, 4096))
	clear(h.bytes[8192:12288])
	r.snapshot("vault", "s4") // its layer has nothing but zeros
	write(0, 5)
	r.snapshot("vault", "s5")
	_, err = r.keys.Disable(t.Context(), "off", "default", r.keyOf("vault"))
	must(t, err)
	top := r.layerIDs("vault")
	r.dropSnapshot("s2")
	if now := r.layerIDs("vault"); len(now) != 5 || now[2] != top[2] || now[3] != top[3] && now[3] != top[4] {
		t.Errorf("layers %v, before %v", now, top)
	}
	r.wantHeld(h, "after s2")
	warnings, err := r.DeleteSnapshot(t.Context(), "delete s4", "default", "s4", volume.Work{})
	must(t, err)
	if len(warnings) != 1 || !strings.Contains(warnings[0], "Disabled") {
		t.Errorf("the layer with zeros: %v", warnings)
	}
	r.wantHeld(h, "after s4")
	_, err = r.keys.Enable(t.Context(), "on", "default", r.keyOf("vault"))
	must(t, err)
	for _, name := range []string{"s5", "s1", "s3"} {
		r.dropSnapshot(name)
		r.wantHeld(h, "after "+name)
	}
	r.wantTidy(1, 1)
}

func (r *rig) keyOf(name string) string {
	r.t.Helper()
	d, err := r.Get(r.t.Context(), "default", name)
	must(r.t, err)
	return d.Key.ID
}

// Rule C15: the disk gets another data key, and the old one goes, but for what a snapshot stands on.
func TestRuleC15_Rekey(t *testing.T) {
	for _, attached := range []bool{true, false} {
		t.Run(fmt.Sprintf("attached=%v", attached), func(t *testing.T) {
			r, rng := newRig(t), rand.New(rand.NewPCG(3, 4))
			h := r.held(kinds[0], rng)
			before := r.layerIDs("vault")
			if !attached {
				_, err := r.detach("vault")
				must(t, err)
			}
			kept, err := r.Rekey(t.Context(), "rekey", "default", "vault", volume.Work{})
			must(t, err)
			if len(kept) != 0 {
				t.Errorf("kept for %v", kept)
			}
			r.wantHeld(h, "after a re-key")
			r.wantTidy(1, 1)
			if after := r.layerIDs("vault"); len(after) != 1 || after[0] == before[0] {
				t.Errorf("layers %v, before %v", after, before)
			}
			if !attached {
				r.attach("vault")
			}
			r.snapshot("vault", "s1")
			kept, err = r.Rekey(t.Context(), "rekey again", "default", "vault", volume.Work{})
			must(t, err)
			if len(kept) != 1 || kept[0] != "snapshot s1" {
				t.Errorf("kept for %v", kept)
			}
			r.wantHeld(h, "after a re-key with a snapshot")
			r.wantTidy(2, 2)
			_, err = r.detach("vault")
			must(t, err)
			_, err = r.Rollback(t.Context(), "back", "default", "vault", "s1")
			must(t, err)
			r.wantHeld(h, "rolled back")
		})
	}
}

func (r *rig) layerIDs(name string) (ids []string) {
	r.t.Helper()
	d, err := r.Get(r.t.Context(), "default", name)
	must(r.t, err)
	for _, l := range d.Layers {
		ids = append(ids, l.ID)
	}
	return ids
}

// A plain disk has no data key.
func TestRekeyRefusesPlainDisks(t *testing.T) {
	r := newRig(t)
	r.create(kinds[1])
	_, err := r.Rekey(t.Context(), "rekey", "default", "plain", volume.Work{})
	wantCode(t, err, refusal.Failed)
	_, err = r.Rekey(t.Context(), "rekey", "default", "nobody", volume.Work{})
	wantCode(t, err, refusal.NotFound)
}

// Interrupted, it says so, and the same command goes on.
func TestRekeyIsInterruptedAndGoesOn(t *testing.T) {
	r, rng := newRig(t), rand.New(rand.NewPCG(5, 6))
	h := r.held(kinds[0], rng)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := r.Rekey(ctx, "rekey", "default", "vault", volume.Work{Progress: func(done, total int64) { cancel() }})
	wantCode(t, err, refusal.Failed)
	r.wantLayers("vault", 2)
	r.wantHeld(h, "in between")
	h.scribble(t, r.attachmentOf("vault"), rng, 5)
	_, err = r.CreateSnapshot(t.Context(), "s", "default", "vault", "s1")
	wantCode(t, err, refusal.Busy)
	_, err = r.Rekey(t.Context(), "rekey 2", "default", "vault", volume.Work{})
	must(t, err)
	r.wantHeld(h, "at the end")
	r.wantTidy(1, 1)
}
