package volume_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/pool/pooltest"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// copied is a disk of its own with the data of an image, plain where it has no key.
func copied(name, image, key string) volume.Spec {
	return volume.Spec{Project: "default", Name: name, Encrypted: key != "", Key: key, From: &volume.From{Kind: volume.ImageKind, Ref: image, Convert: true}}
}

// make makes a disk as a server does, by whichever of the two ways.
func (r *rig) make(request string, spec volume.Spec) (volume.Disk, error) {
	if spec.From != nil && spec.From.Convert {
		return r.CreateCopy(r.t.Context(), request, spec, volume.Work{})
	}
	return r.Create(r.t.Context(), request, spec)
}

// Rule A25: of a plain image a disk is plain, and stands on it, or encrypted under any key, and is its own. So can disks be of an encrypted one.
func TestRuleA25_DisksOfAPlainImage(t *testing.T) {
	r := newRig(t)
	r.key("mine")
	r.key("other")
	images := map[string][]byte{"open": r.golden("open", false), "secret": r.golden("secret", true)}
	if d := r.create(ofImage("linked", "open")); d.Encrypted || len(d.Layers) != 2 {
		t.Errorf("%+v", d)
	}
	r.holds("linked", images["open"])
	n := 0
	for image, data := range images {
		for _, key := range []string{"", "mine", "other"} {
			for _, sector := range []int{0, 4096} {
				n++
				spec := copied(fmt.Sprintf("copied-%d", n), image, key)
				spec.SectorSize = sector
				r.wantCopied(spec, image, data)
			}
		}
	}
	// They stand on nothing.
	must(t, r.Delete(t.Context(), "delete linked", "default", "linked"))
	for image := range images {
		_, err := r.DeleteImage(t.Context(), "delete "+image, "default", image)
		must(t, err)
	}
	r.restart()
	for i := range n {
		name := fmt.Sprintf("copied-%d", i+1)
		r.holds(name, images["open"])
		must(t, r.Delete(t.Context(), "delete "+name, "default", name))
	}
	if left := r.files(); len(left) != 0 || r.records("disk")+r.records("layer/")+r.records("dek/")+r.records("ref/") != 0 {
		t.Errorf("%q are left", left)
	}
}

// wantCopied makes a disk of an image, and sees that it is as was asked for.
func (r *rig) wantCopied(spec volume.Spec, image string, data []byte) {
	r.t.Helper()
	var steps []int64
	d, err := r.CreateCopy(r.t.Context(), "copy "+spec.Name, spec, volume.Work{Progress: func(done, total int64) {
		if total != int64(len(data)) {
			r.t.Errorf("progress of %d bytes", total)
		}
		steps = append(steps, done)
	}})
	must(r.t, err)
	sector := max(spec.SectorSize, 512)
	if d.Encrypted != spec.Encrypted || (d.Key != nil) != spec.Encrypted || d.Key != nil && d.Key.Alias != spec.Key || d.SectorSize != sector ||
		d.Size != int64((len(data)+sector-1)/sector*sector) || len(d.Layers) != 1 || d.Status != volume.Available || d.Source == nil || d.Source.Name != image {
		r.t.Errorf("%+v", d)
	}
	if steps[len(steps)-1] != int64(len(data)) {
		r.t.Errorf("progress %v", steps)
	}
	if plain := bytes.Contains(r.ciphertext(d), known[:33]); plain == spec.Encrypted {
		r.t.Errorf("disk %s: encrypted %v, and its files hold plaintext: %v", d.Name, spec.Encrypted, plain)
	}
	r.holds(d.Name, data)
	// What was a hole is one: the two MiB at the beginning.
	if space, err := r.Space(r.t.Context(), "default", d.Name); err != nil || space.Written > int64(len(data))-2*mib+8192 {
		r.t.Errorf("%+v, %v", space, err)
	}
}

// From one key to another there is no plaintext in any file, on the way neither.
func TestNoFileHoldsWhatIsCopied(t *testing.T) {
	r := newRig(t)
	r.key("mine")
	r.key("other")
	data := r.golden("secret", true)
	_, err := r.CreateCopy(t.Context(), "copy", copied("vault", "secret", "other"), volume.Work{Progress: func(int64, int64) { r.wantNoPlaintext() }})
	must(t, err)
	r.wantNoPlaintext()
	r.holds("vault", data)
}

// A copied disk may be larger than its image, not smaller; a name, a key and a source have to be good before anything is read.
func TestWhatIsCopiedIsChecked(t *testing.T) {
	r := newRig(t)
	r.key("mine")
	data := r.golden("open", false)
	larger := copied("larger", "open", "mine")
	larger.Size, larger.Shared, larger.HideHoles = 8*mib, true, true
	d, err := r.make("larger", larger)
	if must(t, err); d.Size != 8*mib || !d.Shared || !d.HideHoles {
		t.Errorf("%+v", d)
	}
	r.holds("larger", data)
	for _, c := range []struct {
		name string
		code refusal.Code
		spec func(*volume.Spec)
	}{
		{"smaller", refusal.Usage, func(s *volume.Spec) { s.Size = mib }},
		{"no whole sectors", refusal.Usage, func(s *volume.Spec) { s.Size = 8*mib + 1 }},
		{"sector size", refusal.Usage, func(s *volume.Spec) { s.SectorSize = 1024 }},
		{"a key for a plain disk", refusal.Usage, func(s *volume.Spec) { s.Encrypted = false }},
		{"name", refusal.Usage, func(s *volume.Spec) { s.Name = "a/b" }},
		{"taken name", refusal.Busy, func(s *volume.Spec) { s.Name = "larger" }},
		{"no image", refusal.NotFound, func(s *volume.Spec) { s.From.Ref = "none" }},
		{"no key", refusal.NotFound, func(s *volume.Spec) { s.Key = "none" }},
		{"a snapshot", refusal.Failed, func(s *volume.Spec) { s.From.Kind = volume.SnapshotKind }},
		{"not copied", refusal.Failed, func(s *volume.Spec) { s.From.Convert = false }},
		{"of nothing", refusal.Failed, func(s *volume.Spec) { s.From = nil }},
	} {
		spec := copied("refused", "open", "mine")
		c.spec(&spec)
		_, err := r.CreateCopy(t.Context(), c.name, spec, volume.Work{Begun: func() { t.Errorf("%s: it began", c.name) }})
		if refusal.CodeOf(err) != c.code {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := r.Create(t.Context(), "create", copied("refused", "open", "mine")); refusal.CodeOf(err) != refusal.Failed {
		t.Errorf("%v", err)
	}
	if n := r.records("disk/"); n != 1 {
		t.Errorf("%d disks", n)
	}
}

// Rule A36: neither the image's key nor the disk's can be one that can't be used, and that the image's is used is told first.
func TestRuleA36_NothingIsCopiedWithoutItsKeys(t *testing.T) {
	r := newRig(t)
	r.key("mine")
	r.key("other")
	r.golden("secret", true)
	for _, key := range []string{"mine", "other"} {
		_, err := r.keys.Disable(t.Context(), "disable "+key, "default", key)
		must(t, err)
		_, err = r.make("copy "+key, copied("vault", "secret", "other"))
		if wantCode(t, err, refusal.KeyForbids); err == nil || !strings.Contains(err.Error(), "Disabled") {
			t.Errorf("%v does not say the state", err)
		}
		_, err = r.keys.Enable(t.Context(), "enable "+key, "default", key)
		must(t, err)
	}
	image, err := r.Point(t.Context(), volume.ImageKind, "default", "secret")
	must(t, err)
	untold, told := errors.New("nobody can be told"), 0
	_, err = r.CreateCopy(t.Context(), "untold", copied("vault", "secret", "other"), volume.Work{
		Progress: func(int64, int64) { t.Error("it was used") },
		Released: func(of keystore.Holder, key *keystore.KeyVersionRef) error {
			if told++; of != (keystore.Holder{Kind: volume.ImageKind, ID: image.ID}) || key == nil {
				t.Errorf("%+v, %+v", of, key)
			}
			return untold
		}})
	if !errors.Is(err, untold) || told != 1 {
		t.Errorf("told %d times; %v", told, err)
	}
	r.wantNoDisk()
}

// wantNoDisk sees that nothing is left of a disk that was to be made.
func (r *rig) wantNoDisk() {
	r.t.Helper()
	if n := r.records("disk") + r.records("dek/disk/"); n != 0 || r.records("layer/") != 1 || len(r.files()) != 2 {
		r.t.Errorf("%d records, %d layers, files %q", n, r.records("layer/"), r.files())
	}
}

// While it is copied a disk is downloading and nobody's, and its image stays; interrupted nothing is left of it.
func TestADiskThatIsBeingCopied(t *testing.T) {
	r := newRig(t)
	data := r.golden("open", false)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	looked := false
	look := func(int64, int64) {
		looked = true
		if d, err := r.Get(t.Context(), "default", "vault"); err != nil || d.Status != volume.Downloading {
			t.Errorf("%s, %v", d.Status, err)
		}
		_, err := r.Attach(t.Context(), "attach", spec("vault"))
		wantCode(t, err, refusal.Busy)
		wantCode(t, r.Delete(t.Context(), "delete", "default", "vault"), refusal.Busy)
		_, err = r.DeleteImage(t.Context(), "delete image", "default", "open")
		wantCode(t, err, refusal.Busy)
		interrupt()
	}
	_, err := r.CreateCopy(ctx, "copy", copied("vault", "open", keystore.DefaultAlias), volume.Work{Progress: look})
	if !errors.Is(err, context.Canceled) || !looked {
		t.Errorf("%v", err)
	}
	r.wantNoDisk()
	_, err = r.make("copy", copied("vault", "open", keystore.DefaultAlias))
	must(t, err)
	r.holds("vault", data)
}

// A copy that storage fails leaves nothing, and one that there is no room for does not begin.
func TestACopyThatFailsLeavesNothing(t *testing.T) {
	r := newRig(t)
	r.golden("open", false)
	for _, op := range []pooltest.Op{pooltest.OpWrite, pooltest.OpFlush} {
		r.faults.Hook(func(c pooltest.Call) error {
			if c.Op == op && strings.HasSuffix(c.Volume, "/data") {
				return syscall.EIO
			}
			return nil
		})
		if _, err := r.make("copy "+string(op), copied("vault", "open", keystore.DefaultAlias)); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %v", op, err)
		}
		r.faults.Hook(nil)
		r.wantNoDisk()
	}
	small := &smallPool{free: 10*mib + 8192}
	r.reopen(func(p pool.Pool) pool.Pool { small.Pool = p; return small })
	_, err := r.CreateCopy(t.Context(), "full", copied("vault", "open", keystore.DefaultAlias), volume.Work{Begun: func() { t.Error("it began") }})
	if wantCode(t, err, refusal.Failed); !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
	r.wantNoDisk()
}
