package volume_test

import (
	"bytes"
	"os"
	"testing"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// ofImage is a disk that stands on an image.
func ofImage(name, image string) volume.Spec {
	return volume.Spec{Project: "default", Name: name, From: &volume.From{Kind: volume.ImageKind, Ref: image}}
}

// golden makes an image of a file, encrypted under the key mine or plain.
func (r *rig) golden(name string, encrypted bool) []byte {
	r.t.Helper()
	data := append(append(make([]byte, 2*mib), known...), make([]byte, 512-len(known)%512)...)
	spec := volume.ImageSpec{Name: name, Size: int64(len(data)), Encrypted: encrypted}
	if encrypted {
		spec.Key = "mine"
	}
	_, err := r.importImage(spec, data)
	must(r.t, err)
	return data
}

func (r *rig) wantDisk(name string, want []byte) {
	r.t.Helper()
	a := r.attach(name)
	got := make([]byte, len(want))
	_, err := a.Device.ReadAt(got, 0)
	must(r.t, err)
	if !bytes.Equal(got, want) {
		r.t.Errorf("disk %s holds other bytes than its image", name)
	}
	_, err = r.detach(name)
	must(r.t, err)
}

// Rule A29: a disk from an image has its attribute, its key and its data; anything else is refused.
func TestRuleA29_DisksFromImages(t *testing.T) {
	r := newRig(t)
	r.key("mine")
	r.key("other")
	data := r.golden("secret", true)
	r.golden("open", false)
	yes, no := true, false
	for name, spec := range map[string]volume.Spec{
		"plain of encrypted":  {From: &volume.From{Kind: volume.ImageKind, Ref: "secret", Encrypted: &no}},
		"another key":         {Key: "other", From: &volume.From{Kind: volume.ImageKind, Ref: "secret"}},
		"encrypted of plain":  {From: &volume.From{Kind: volume.ImageKind, Ref: "open", Encrypted: &yes}},
		"a key for plain":     {Key: "mine", From: &volume.From{Kind: volume.ImageKind, Ref: "open"}},
		"smaller":             {Size: mib, From: &volume.From{Kind: volume.ImageKind, Ref: "secret"}},
		"another sector size": {SectorSize: 4096, From: &volume.From{Kind: volume.ImageKind, Ref: "secret"}},
	} {
		spec.Project, spec.Name = "default", "refused"
		_, err := r.Create(t.Context(), name, spec)
		wantCode(t, err, refusal.Usage)
	}
	mine, err := r.keys.Key(t.Context(), "default", "mine")
	must(t, err)
	same := ofImage("same", "secret")
	same.Key, same.From.Encrypted = "mine", &yes
	for _, spec := range []volume.Spec{ofImage("disk", "secret"), same} {
		d := r.create(spec)
		if !d.Encrypted || d.Key == nil || d.Key.ID != mine.ID || d.Size != int64(len(data)) || d.Source == nil || d.Source.Kind != volume.ImageKind || d.Source.Name != "secret" {
			t.Errorf("%+v", d)
		}
		r.wantDisk(spec.Name, data)
	}
	if d := r.create(ofImage("bare", "open")); d.Encrypted || d.Key != nil {
		t.Errorf("%+v", d)
	}
	larger := ofImage("larger", "secret")
	larger.Size = 8 * mib
	r.create(larger)
	r.wantDisk("larger", append(data, make([]byte, 8*mib-len(data))...))
}

// Rule A36: while its key can't be used nothing is made of an image, which is said with the key's state; then it goes on.
func TestRuleA36_AnImageIsUnusableWhileItsKeyIs(t *testing.T) {
	r := newRig(t)
	r.key("mine")
	data := r.golden("secret", true)
	for name, unusable := range map[string]struct {
		state string
		do    func() error
		undo  func() error
	}{
		"disabled": {"Disabled", func() error { _, err := r.keys.Disable(t.Context(), "disable", "default", "mine"); return err },
			func() error { _, err := r.keys.Enable(t.Context(), "enable", "default", "mine"); return err }},
		"pending": {"Pending deletion", func() error {
			_, err := r.keys.ScheduleDeletion(t.Context(), "schedule", "default", "mine", 7)
			return err
		},
			func() error {
				_, err := r.keys.CancelDeletion(t.Context(), "cancel", "default", "mine", true)
				return err
			}},
	} {
		must(t, unusable.do())
		_, err := r.Create(t.Context(), "create "+name, ofImage("disk-"+name, "secret"))
		wantCode(t, err, refusal.KeyForbids)
		if err == nil || !bytes.Contains([]byte(err.Error()), []byte(unusable.state)) {
			t.Errorf("%v does not say %q", err, unusable.state)
		}
		if i, err := r.Point(t.Context(), volume.ImageKind, "default", "secret"); err != nil || i.Key.State.String() != unusable.state {
			t.Errorf("%+v, %v", i.Key, err)
		}
		must(t, unusable.undo())
		r.create(ofImage("disk-"+name, "secret"))
		r.wantDisk("disk-"+name, data)
	}
}

// Two disks of one image that write the same at the same place have different ciphertext there.
func TestDisksOfOneImageShareNoCiphertextTheyWrite(t *testing.T) {
	r := newRig(t)
	r.key("mine")
	r.golden("secret", true)
	var written [][]byte
	for _, name := range []string{"one", "two"} {
		d := r.create(ofImage(name, "secret"))
		a := r.attach(name)
		_, err := a.Device.WriteAt(known[:8192], mib)
		must(t, err)
		_, err = r.detach(name)
		must(t, err)
		b, err := os.ReadFile(d.Layers[0].Segments[0])
		must(t, err)
		written = append(written, b[mib:mib+8192])
	}
	for at := 0; at < 8192; at += 16 {
		if bytes.Equal(written[0][at:at+16], written[1][at:at+16]) {
			t.Fatalf("the same ciphertext at byte %d", at)
		}
	}
	r.wantNoPlaintext()
}

// An image that disks stand on can go: they keep what they need of it, and the last of them takes that along.
func TestAnImageGoesAndItsDisksStay(t *testing.T) {
	r := newRig(t)
	r.key("mine")
	data := r.golden("secret", true)
	r.create(ofImage("one", "secret"))
	a := r.attach("one")
	_, err := r.DeleteImage(t.Context(), "delete", "default", "secret")
	must(t, err)
	got := make([]byte, len(data))
	if _, err := a.Device.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%v, equal %v", err, bytes.Equal(got, data))
	}
	_, err = r.detach("one")
	must(t, err)
	r.restart()
	r.wantDisk("one", data)
	_, err = r.Create(t.Context(), "again", ofImage("two", "secret"))
	wantCode(t, err, refusal.NotFound)
	must(t, r.Delete(t.Context(), "delete one", "default", "one"))
	if left := r.files(); len(left) != 0 {
		t.Errorf("%q are left", left)
	}
	for _, prefix := range []string{"layer/", "dek/", "ref/", "image", "point-of/"} {
		if n := r.records(prefix); n != 0 {
			t.Errorf("%d records %s are left", n, prefix)
		}
	}
}
