package volume_test

import (
	"bytes"
	"os"
	"testing"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
	"nbdcrypt/xts"
)

// TestRuleB13_ExtendOverLayers: a disk grows, attached or not, over a snapshot and beside a disk that shares its layers; what it held is
// as before, what is new is zeros and can be written, and nobody else gets larger. None shrinks.
func TestRuleB13_ExtendOverLayers(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.with("vault", func(a *volume.Attachment) { r.writes(a, 'a', 0, 4*mib) })
		r.snap("vault", "before")
		r.linked("before", "child")
		grow := func(disk string, size int64) {
			t.Helper()
			d, err := r.Extend(t.Context(), "extend "+disk, "default", disk, size)
			if err != nil || d.Size != size {
				t.Fatalf("%s is to have %d bytes, has %d: %v", disk, size, d.Size, err)
			}
			_, err = r.Extend(t.Context(), "shrink "+disk, "default", disk, size-mib)
			wantCode(t, err, refusal.Usage)
		}
		sized := func(a *volume.Attachment, size int64) {
			t.Helper()
			if got, err := a.Device.Size(); err != nil || got != size {
				t.Errorf("clients of %s see %d bytes, not %d: %v", a.Name, got, size, err)
			}
		}
		child, vault := r.attach("child"), r.attach("vault")
		grow("vault", 7*mib) // online
		sized(vault, 7*mib)
		r.reads(vault, 'a', 0, 4*mib)
		r.reads(vault, 0, 4*mib, 3*mib)
		r.writes(vault, 'b', 4*mib-8192, mib)
		r.snap("vault", "after")
		grow("vault", 9*mib)
		r.writes(vault, 'c', 8*mib, mib)
		sized(child, 4*mib)
		r.reads(child, 'a', 0, 4*mib)
		for _, name := range []string{"child", "vault"} {
			_, err := r.detach(name)
			must(t, err)
		}
		grow("child", 6*mib) // offline
		r.restart()
		r.with("child", func(a *volume.Attachment) {
			sized(a, 6*mib)
			r.reads(a, 'a', 0, 4*mib)
			r.reads(a, 0, 4*mib, 2*mib)
		})
		r.with("vault", func(a *volume.Attachment) {
			sized(a, 9*mib)
			r.reads(a, 'a', 0, 4*mib-8192)
			r.reads(a, 'b', 4*mib-8192, mib)
			r.reads(a, 0, 5*mib-8192, 3*mib+8192)
			r.reads(a, 'c', 8*mib, mib)
		})
		for name, size := range map[string]int64{"before": 4 * mib, "after": 7 * mib} {
			if p, err := r.Point(t.Context(), volume.SnapshotKind, "default", name); err != nil || p.Size != size {
				t.Errorf("snapshot %s has %d bytes, not %d: %v", name, p.Size, size, err)
			}
		}
		if _, found := r.checks(); len(found) != 0 {
			t.Errorf("found: %q", found)
		}
	})
}

// A shared disk, attached many times, grows for all at once; one that is attached read-only does not.
func TestRuleB13_ExtendWhatIsAttachedTwice(t *testing.T) {
	r := newRig(t)
	r.create(sharedDisk)
	r.mustAs("ann")
	r.mustAs("bob")
	d, err := r.Extend(t.Context(), "e", "default", "quorum", 8*mib)
	if must(t, err); d.Size != 8*mib || d.Status != volume.InUse {
		t.Errorf("%+v", d)
	}
	_, _, err = r.leaves(func(s *volume.DetachSpec) { s.All = true })
	must(t, err)
	s := spec("quorum")
	s.ReadOnly = true
	_, err = r.Attach(t.Context(), "a", s)
	must(t, err)
	_, err = r.Extend(t.Context(), "e2", "default", "quorum", 16*mib)
	wantCode(t, err, refusal.Busy)
}

// stacked makes the disk vault of three layers, each with something of its own, and tells what it holds.
func (r *rig) stacked() (d volume.Disk, want []byte) {
	r.t.Helper()
	r.create(secretDisk)
	want = make([]byte, secretDisk.Size)
	for i, name := range []string{"one", "two", ""} {
		p := bytes.Repeat([]byte{byte('a' + i)}, mib)
		r.with("vault", func(a *volume.Attachment) { write(r.t, a, p, int64(i)*mib) })
		copy(want[i*mib:], p)
		if name != "" {
			r.snap("vault", name)
		}
	}
	d, err := r.Get(r.t.Context(), "default", "vault")
	must(r.t, err)
	return d, want
}

// decrypted is what a standard XTS-AES-256 makes of ciphertext under a key.
func decrypted(t *testing.T, key, sealed []byte, sector int) []byte {
	t.Helper()
	memory := make([]byte, xts.Size)
	c, err := xts.New(memory, key)
	must(t, err)
	plain := make([]byte, len(sealed))
	c.Decrypt(plain, sealed, sector, 0)
	return plain
}

// Escrow gives out the key of each layer, top first as `disk show` has them: with these and the maps the segments open without us.
func TestEscrowOverLayers(t *testing.T) {
	r := newRig(t)
	d, want := r.stacked()
	released := 0
	sector, keys, err := r.Escrow(t.Context(), "default", "vault", func(keystore.KeyVersionRef) error { released++; return nil })
	must(t, err)
	defer volume.DestroyAll(keys)
	if len(keys) != 3 || len(d.Layers) != 3 || released != 3 {
		t.Fatalf("%d keys of %d layers, %d released", len(keys), len(d.Layers), released)
	}
	for i, k := range keys {
		sealed, err := os.ReadFile(d.Layers[i].Segments[0])
		must(t, err)
		at := (2 - i) * mib // what was written to that layer
		plain := decrypted(t, k.Key.Bytes(), sealed, sector)
		if k.Layer != d.Layers[i].ID || !bytes.Equal(plain[at:at+mib], want[at:at+mib]) {
			t.Errorf("layer %d does not open with its key", i)
		}
	}
}

// An export is all that a client would read, whatever layers it lies in, under one key.
func TestExportOverLayers(t *testing.T) {
	r := newRig(t)
	_, want := r.stacked()
	c, err := r.Ciphertext(t.Context(), "default", "vault", func(*keystore.KeyVersionRef) error { return nil })
	must(t, err)
	defer c.Close()
	var sealed bytes.Buffer
	must(t, c.Write(t.Context(), &sealed))
	if !bytes.Equal(decrypted(t, c.Key.Key.Bytes(), sealed.Bytes(), c.SectorSize), want) {
		t.Error("it does not decrypt to what the disk holds")
	}
}
