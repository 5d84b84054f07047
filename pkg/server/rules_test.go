package server_test

import (
	"fmt"
	"testing"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/server"
	"nbdcrypt/pkg/volume"
)

// Rule A24: the system disk of a server of an encrypted image is encrypted, under the image's key; plain, or another key, is refused.
func TestRuleA24_SystemDiskIsUnderTheImagesKey(t *testing.T) {
	r := golden(t)
	mine, err := r.keys.Key(t.Context(), "default", "mine")
	must(t, err)
	yes, no := true, false
	before := r.state()
	for name, spec := range map[string]server.Spec{
		"plain":           {AskedEncrypted: &no},
		"plain, as it is": {AskedEncrypted: &no, AsImage: true},
		"another key":     {System: server.DiskSpec{Encrypted: true, Key: "other"}},
		"other sectors":   {System: server.DiskSpec{SectorSize: 4096}},
		"smaller":         {System: server.DiskSpec{Size: mib / 2}},
	} {
		spec.Project, spec.Name, spec.Image, spec.Data = "default", "web", "golden", ofGolden("").Data
		_, err := r.Create(t.Context(), name, spec, volume.Work{})
		if refusal.CodeOf(err) != refusal.Usage {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after := r.state(); after != before {
		t.Errorf("refused servers left\n%s", after)
	}
	for name, spec := range map[string]server.Spec{
		"as-it-is":   {AsImage: true},
		"asked":      {AskedEncrypted: &yes, System: server.DiskSpec{Encrypted: true, Key: "mine"}},
		"larger":     {System: server.DiskSpec{Size: 2 * mib}},
		"by-default": {System: server.DiskSpec{Encrypted: false}}, // what the project does with disks without a source is no matter
	} {
		spec.Project, spec.Name, spec.Image = "default", name, "golden"
		v := r.create(spec)
		d := r.disk(v.Disks[0].Name)
		if !d.Encrypted || d.Key == nil || d.Key.ID != mine.ID || !d.Bootable || d.Source == nil || d.Source.Name != "golden" {
			t.Errorf("%s: %+v", name, d)
		}
		r.holds(v.Disks[0].Name, 'g')
	}
	r.empty()
}

// Rule A25: of a plain image the system disk is what was asked for, under any key.
func TestRuleA25_OfAPlainImageTheChoiceIsFree(t *testing.T) {
	r := golden(t)
	other, err := r.keys.Key(t.Context(), "default", "other")
	must(t, err)
	yes, no := true, false
	for name, c := range map[string]struct {
		spec      server.Spec
		encrypted bool
	}{
		"as-it-is":   {server.Spec{AsImage: true}, false},
		"plain":      {server.Spec{AskedEncrypted: &no}, false},
		"encrypted":  {server.Spec{AskedEncrypted: &yes, System: server.DiskSpec{Encrypted: true, Key: "other"}}, true},
		"by-default": {server.Spec{System: server.DiskSpec{Encrypted: true, Key: "other", Size: 2 * mib}}, true},
	} {
		c.spec.Project, c.spec.Name, c.spec.Image = "default", name, "open"
		var total int64
		v, err := r.Create(t.Context(), name, c.spec, volume.Work{Progress: func(_, of int64) { total = of }})
		must(t, err)
		d := r.disk(v.Disks[0].Name)
		if d.Encrypted != c.encrypted || c.encrypted && d.Key.ID != other.ID || !d.Bootable || c.encrypted && total != mib {
			t.Errorf("%s: %+v, progress of %d", name, d, total)
		}
		r.holds(v.Disks[0].Name, 'o')
	}
	_, err = r.Create(t.Context(), "x", server.Spec{Project: "default", Name: "x", Image: "open", System: server.DiskSpec{Key: "other"}}, volume.Work{})
	wantCode(t, err, refusal.Usage)
	r.empty()
}

// Rule A34: data disks that are made with a server are plain or encrypted, each under its own key.
func TestRuleA34_EncryptedDataDisksAtCreation(t *testing.T) {
	r := golden(t)
	other, err := r.keys.Key(t.Context(), "default", "other")
	must(t, err)
	r.create(ofGolden("web"))
	if d := r.disk("web-data-1"); d.Encrypted || d.Key != nil || d.Size != 2*mib || d.SectorSize != 4096 || d.Bootable {
		t.Errorf("%+v", d)
	}
	if d := r.disk("web-data-2"); !d.Encrypted || d.Key.ID != other.ID || d.Size != 3*mib || d.Bootable {
		t.Errorf("%+v", d)
	}
	r.holds("web-data-2", 0)
	r.empty()
}

// Rule A35: a scaling configuration of an encrypted server shows attribute and key of each disk, and servers that are scaled of it have those, each with DEKs of its own.
func TestRuleA35_AScalingConfigurationKeepsEncryption(t *testing.T) {
	r := golden(t)
	mine, err := r.keys.Key(t.Context(), "default", "mine")
	must(t, err)
	other, err := r.keys.Key(t.Context(), "default", "other")
	must(t, err)
	r.group("g", 3)
	c, err := r.Config(t.Context(), "default", "c")
	must(t, err)
	if len(c.Disks) != 3 || !c.Owned || c.Image.Name != "c" || c.Source == nil || c.Source.Name != "web" || c.Status != server.Available {
		t.Fatalf("%+v", c)
	}
	keys := []string{mine.ID, "", other.ID}
	for i, d := range c.Disks {
		if d.Encrypted != (keys[i] != "") || d.Encrypted != (d.Key != nil) || d.Encrypted && d.Key.ID != keys[i] {
			t.Errorf("disk %d of the configuration: %+v", i, d)
		}
	}
	seen := map[string]string{}
	for n := 1; n <= 3; n++ {
		v, err := r.Get(t.Context(), "default", fmt.Sprintf("g-%d", n))
		must(t, err)
		if v.Group == nil || v.Group.Name != "g" || len(v.Disks) != 3 {
			t.Errorf("%+v", v)
		}
		for i, d := range v.Disks {
			is, like := r.disk(d.Name), c.Disks[i]
			if is.Encrypted != like.Encrypted || is.Size != like.Size || is.SectorSize != like.SectorSize || is.Encrypted && is.Key.ID != keys[i] || is.Bootable != (i == 0) {
				t.Errorf("%s: %+v, like %+v", d.Name, is, like)
			}
			if !is.Encrypted {
				continue
			}
			// The DEK of its own layer is nobody else's: a layer is one disk's, and the record is the disk's alone.
			deks := r.names("dek/disk/" + is.ID + "/" + is.Layers[0].ID)
			if len(deks) != 1 || seen[is.Layers[0].ID] != "" {
				t.Errorf("%s: DEKs %v, its layer is that of %s", d.Name, deks, seen[is.Layers[0].ID])
			}
			seen[is.Layers[0].ID] = d.Name
		}
		r.holds(v.Disks[0].Name, 'g')
	}
	for _, key := range []string{mine.ID, other.ID} {
		if under, err := r.ConfigsUnder(t.Context(), "default", key); err != nil || len(under) != 1 || under[0].Name != "c" {
			t.Errorf("under %s: %+v, %v", key, under, err)
		}
	}
	if under, err := r.ConfigsUnder(t.Context(), "default", "none"); err != nil || len(under) != 0 {
		t.Errorf("%+v, %v", under, err)
	}
	r.whole()
	r.empty()
}

// Rule A36: an image is unusable while its key is: no server, configuration or group is made of it, and the refusal names disk, key and state.
func TestRuleA36_AnImageIsUnusableWhileItsKeyIs(t *testing.T) {
	r := golden(t)
	g := r.group("g", 1)
	before := r.state()
	ctx := t.Context()
	for _, c := range []struct{ key, of string }{{"mine", "system"}, {"other", "data"}} {
		_, err := r.keys.Disable(ctx, "disable "+c.key, "default", c.key)
		must(t, err)
		says := []string{c.key, "Disabled", c.of}
		_, err = r.Create(ctx, "s "+c.key, ofGolden("second"), volume.Work{})
		wantCode(t, err, refusal.KeyForbids, says...)
		wantCode(t, r.Preflight(ctx, "default", "c"), refusal.KeyForbids, says...)
		_, err = r.Scale(ctx, "up "+c.key, "default", "g", 4, nil)
		wantCode(t, err, refusal.KeyForbids, says...)
		_, err = r.CreateGroup(ctx, "g "+c.key, server.GroupSpec{Project: "default", Name: "h", Config: "c", Min: 1, Max: 2}, nil)
		wantCode(t, err, refusal.KeyForbids, says...)
		_, err = r.CreateConfig(ctx, "c "+c.key, server.ConfigSpec{Project: "default", Name: "d", Server: "web"})
		wantCode(t, err, refusal.KeyForbids, says...)
		_, err = r.CreateConfig(ctx, "i "+c.key, server.ConfigSpec{Project: "default", Name: "d", Image: "golden", Data: ofGolden("").Data})
		wantCode(t, err, refusal.KeyForbids, says...)
		_, err = r.keys.Enable(ctx, "enable "+c.key, "default", c.key)
		must(t, err)
	}
	for _, key := range []string{"mine", "other"} {
		_, err := r.keys.Disable(ctx, "both "+key, "default", key)
		must(t, err)
	}
	wantCode(t, r.Preflight(ctx, "default", "c"), refusal.KeyForbids, "mine", "other", "system disk", "data disk 2")
	if after := r.state(); after != before {
		t.Errorf("what was refused left\n%s\nbefore:\n%s", after, before)
	}
	// Going needs no key.
	down, err := r.Scale(ctx, "down", "default", "g", 1, nil)
	if err != nil || down.ID != g.ID {
		t.Errorf("%+v, %v", down, err)
	}
	r.empty()
}

// Members are linked clones: making one writes none of the image's data again, however many there are.
func TestMembersCopyNothing(t *testing.T) {
	r := golden(t)
	r.group("g", 10)
	for _, disk := range []string{"g-1-system", "g-10-system"} {
		space, err := r.volumes.Space(t.Context(), "default", disk)
		must(t, err)
		if space.Written != mib || space.Shared != mib {
			t.Errorf("%s has %d bytes of its own beside %d of the image", disk, space.Written-space.Shared, space.Shared)
		}
	}
}
