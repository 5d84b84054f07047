package volume_test

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/pool/pooltest"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// wiped notes the layers whose keys a detach wipes.
func (r *rig) wiped(disk string) (layers []string) {
	r.t.Helper()
	spec := leave(disk)
	spec.Wiping = func(_ *volume.Attachment, keys []volume.LayerKey) {
		for _, k := range keys {
			layers = append(layers, k.Layer)
		}
	}
	_, err := r.Detach(r.t.Context(), "detach "+disk, spec)
	must(r.t, err)
	slices.Sort(layers)
	return layers
}

// Rule A13: a detach wipes what nobody else uses, and the last one all the rest.
func TestRuleA13_SharedKeysAreWipedWithTheirLastUser(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	r.snap("vault", "one")
	x, y := r.linked("one", "x"), r.linked("one", "y")
	r.attach("x")
	r.attach("y")
	if got := r.wiped("x"); !slices.Equal(got, []string{x.Layers[0].ID}) {
		t.Errorf("the first detach wipes %v", got)
	}
	both := []string{y.Layers[0].ID, y.Layers[1].ID}
	slices.Sort(both)
	if got := r.wiped("y"); !slices.Equal(got, both) {
		t.Errorf("the second detach wipes %v, not %v", got, both)
	}
}

// A holder whose record opens to another key than others have is damaged, and they go on.
func TestSharedKeyThatDiffers(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	r.with("vault", func(a *volume.Attachment) { r.writes(a, 'a', 0, mib) })
	r.snap("vault", "one")
	x, y := r.linked("one", "x"), r.linked("one", "y")
	shared := x.Layers[1].ID
	rec, err := r.keys.GenerateDEK(t.Context(), "default", "", keystore.Holder{Kind: "disk", ID: y.ID}, shared, 512)
	must(t, err)
	must(t, r.catalog.Update(t.Context(), "swap", func(t catalog.Txn) error { return keystore.PutDEK(t, rec) }))
	a := r.attach("x")
	_, err = r.Attach(t.Context(), "attach y", spec("y"))
	wantCode(t, err, refusal.Damaged)
	r.reads(a, 'a', 0, mib)
	if got := r.wiped("x"); !slices.Contains(got, shared) {
		t.Errorf("the refused attach still counts: %v", got)
	}
}

// A CMK that can't be used makes no snapshot, and I/O goes on; nothing of it stays.
func TestSnapshotUnderAnUnusableKey(t *testing.T) {
	r := newRig(t)
	r.key("mine")
	s := secretDisk
	s.Key = "mine"
	r.create(s)
	a := r.attach("vault")
	r.writes(a, 'a', 0, mib)
	_, err := r.keys.Disable(t.Context(), "disable", "default", "mine")
	must(t, err)
	_, err = r.CreateSnapshot(t.Context(), "refused", "default", "vault", "one")
	wantCode(t, err, refusal.KeyForbids)
	if n := r.records("layer/"); n != 1 || r.records("snapshot") > 0 || r.records("making/") > 0 {
		t.Errorf("%d layers, something stayed", n)
	}
	r.writes(a, 'b', 0, mib)
	must(t, a.Device.Sync())
	r.reads(a, 'b', 0, mib)
}

// What fails while the new layer is made takes the snapshot back; the disk goes on, and the next snapshot works.
func TestSnapshotThatFails(t *testing.T) {
	for _, op := range []pooltest.Op{pooltest.OpWrite, pooltest.OpFlush, pooltest.OpSettle, pooltest.OpDrop} {
		t.Run(string(op), func(t *testing.T) {
			r := newRig(t)
			r.create(secretDisk)
			a := r.attach("vault")
			r.writes(a, 'a', 0, mib)
			must(t, a.Device.Sync())
			fails := true
			r.faults.Hook(func(c pooltest.Call) error {
				if c.Op != op || !fails {
					return nil
				}
				fails = false
				return syscall.EIO
			})
			_, err := r.CreateSnapshot(t.Context(), "fails", "default", "vault", "one")
			if err == nil {
				t.Fatal("it worked")
			}
			if r.records("snapshot") > 0 || r.records("making/") > 0 || r.records("point-of/") > 0 || r.records("dek/snapshot") > 0 {
				t.Error("something of the snapshot stayed")
			}
			r.writes(a, 'b', 0, mib)
			r.snap("vault", "two")
			r.writes(a, 'c', 0, mib)
			_, err = r.detach("vault")
			must(t, err)
			r.linked("two", "x")
			r.with("x", func(a *volume.Attachment) { r.reads(a, 'b', 0, mib) })
			r.cleaned()
		})
	}
}

// A disk that is attached read-only is not frozen: it can't be made durable.
func TestSnapshotOfAReadOnlyAttachment(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	s := spec("vault")
	s.ReadOnly = true
	_, err := r.Attach(t.Context(), "attach", s)
	must(t, err)
	_, err = r.CreateSnapshot(t.Context(), "refused", "default", "vault", "one")
	wantCode(t, err, refusal.Busy)
}

// Of a disk that a crash left there is a snapshot that says so, and the disk's own warning stays.
func TestSnapshotOfWhatACrashLeft(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	a := r.attach("vault")
	r.writes(a, 'a', 0, mib)
	must(t, a.Device.Sync())
	a.Abandon()
	r.restart()
	p := r.snap("vault", "one")
	if len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], "without a detach") {
		t.Errorf("warnings %q", p.Warnings)
	}
	a = r.attach("vault")
	if len(a.Warnings) != 1 {
		t.Errorf("the disk's own: %q", a.Warnings)
	}
	r.reads(a, 'a', 0, mib)
}

// A stack of 32 layers is not frozen any more.
func TestDeepStacks(t *testing.T) {
	r := newRig(t)
	s := secretDisk
	s.Size = mib
	r.create(s)
	disk := "vault"
	for i := 1; i < 32; i++ { // each clone stands on one layer more
		r.snap(disk, fmt.Sprint("s", i))
		disk = fmt.Sprint("d", i)
		r.linked(fmt.Sprint("s", i), disk)
	}
	d, err := r.Get(t.Context(), "default", disk)
	must(t, err)
	if len(d.Layers) != 32 {
		t.Fatalf("%d layers", len(d.Layers))
	}
	_, err = r.CreateSnapshot(t.Context(), "too deep", "default", disk, "deep")
	wantCode(t, err, refusal.Busy)
	r.with(disk, func(a *volume.Attachment) {
		r.writes(a, 'z', 0, 4096)
		r.reads(a, 'z', 0, 4096)
	})
	r.cleaned()
}

// A point's record that can't be read is in lists by its name, keeps no start, and harms no other.
func TestDamagedPoint(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	r.snap("vault", "one")
	p := r.snap("vault", "two")
	must(t, r.catalog.Update(t.Context(), "damage", func(t catalog.Txn) error { return t.Put("snapshot/"+p.ID, []byte(`{"v":2}`)) }))
	r.restart()
	if bad := r.Unreadable(); len(bad) != 1 || !strings.Contains(bad[0].Error(), p.ID) {
		t.Errorf("unreadable: %v", bad)
	}
	seen := map[string]volume.Status{}
	must(t, r.Points(t.Context(), volume.SnapshotKind, "default", "", func(p volume.Point) error { seen[p.Name] = p.Status; return nil }))
	if len(seen) != 2 || seen["one"] != volume.Available || seen["two"] != volume.Damaged {
		t.Errorf("listed: %v", seen)
	}
	_, err := r.Point(t.Context(), volume.SnapshotKind, "default", "two")
	wantCode(t, err, refusal.Damaged)
	r.linked("one", "x")
	wantCode(t, r.Delete(t.Context(), "delete", "default", "vault"), refusal.Damaged)
	r.with("vault", func(*volume.Attachment) {})
}
