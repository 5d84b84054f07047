package server_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/server"
	"nbdcrypt/pkg/volume"
)

func TestWhatNoServerCanBe(t *testing.T) {
	r := golden(t)
	before := r.state()
	for name, change := range map[string]func(*server.Spec){
		"no name":         func(s *server.Spec) { s.Name = "" },
		"an id":           func(s *server.Spec) { s.Name = "0190b5a0-0000-7000-8000-000000000001" },
		"a path":          func(s *server.Spec) { s.Name = "a/b" },
		"too long":        func(s *server.Spec) { s.Name = strings.Repeat("n", 121) },
		"CPUs":            func(s *server.Spec) { s.CPUs = 257 },
		"no CPUs":         func(s *server.Spec) { s.CPUs = -1 },
		"little memory":   func(s *server.Spec) { s.Memory = 32 * mib },
		"odd memory":      func(s *server.Spec) { s.Memory = 512*mib + 1 },
		"network":         func(s *server.Spec) { s.Network = "bridge" },
		"data disk":       func(s *server.Spec) { s.Data = []server.DiskSpec{{Size: 100, SectorSize: 512}} },
		"no size":         func(s *server.Spec) { s.Data = []server.DiskSpec{{SectorSize: 512}} },
		"sectors":         func(s *server.Spec) { s.Data = []server.DiskSpec{{Size: mib, SectorSize: 1024, Encrypted: true}} },
		"a key for plain": func(s *server.Spec) { s.Data = []server.DiskSpec{{Size: mib, SectorSize: 512, Key: "mine"}} },
		"24 data disks":   func(s *server.Spec) { s.Data = make([]server.DiskSpec, 24) },
	} {
		spec := ofGolden("web")
		change(&spec)
		_, err := r.Create(t.Context(), name, spec, volume.Work{})
		if refusal.CodeOf(err) != refusal.Usage || refusal.From(err).Hint == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	spec := ofGolden("web")
	spec.Image = "none"
	_, err := r.Create(t.Context(), "x", spec, volume.Work{})
	wantCode(t, err, refusal.NotFound, "none")
	spec = ofGolden("web")
	spec.Data[1].Key = "nobody"
	_, err = r.Create(t.Context(), "y", spec, volume.Work{})
	wantCode(t, err, refusal.NotFound, "web-data-2", "nobody")
	// A disk in the way: what was made before it goes again.
	_, err = r.volumes.Create(t.Context(), "in the way", volume.Spec{Project: "default", Name: "web-data-1", Size: mib, SectorSize: 512})
	must(t, err)
	_, err = r.Create(t.Context(), "z", ofGolden("web"), volume.Work{})
	wantCode(t, err, refusal.Busy, "web-data-1")
	must(t, r.volumes.Delete(t.Context(), "out of it", "default", "web-data-1"))
	if after := r.state(); after != before {
		t.Errorf("refused servers left\n%s\nbefore:\n%s", after, before)
	}
	for _, ref := range []string{"none", "", "a/b", "0190b5a0-0000-7000-8000-000000000001"} {
		_, err := r.Get(t.Context(), "default", ref)
		wantCode(t, err, refusal.NotFound)
	}
	// The longest names fit all that is made of them.
	spec = ofGolden(strings.Repeat("n", 120))
	r.create(spec)
	r.empty()
}

func TestWhatNoConfigurationOrGroupCanBe(t *testing.T) {
	r := golden(t)
	r.create(ofGolden("web"))
	r.create(server.Spec{Project: "default", Name: "bare", Image: "open", AsImage: true})
	_, err := r.DetachDisk(t.Context(), "detach", "default", "bare", "bare-system")
	must(t, err)
	before := r.state()
	yes, no := true, false
	for name, c := range map[string]struct {
		spec server.ConfigSpec
		code refusal.Code
	}{
		"nothing":               {server.ConfigSpec{}, refusal.NotFound},
		"no such server":        {server.ConfigSpec{Server: "none"}, refusal.NotFound},
		"no such image":         {server.ConfigSpec{Image: "none"}, refusal.NotFound},
		"both":                  {server.ConfigSpec{Server: "web", Image: "golden"}, refusal.Usage},
		"a server's disks":      {server.ConfigSpec{Server: "web", Data: make([]server.DiskSpec, 1)}, refusal.Usage},
		"no system disk":        {server.ConfigSpec{Server: "bare"}, refusal.Busy},
		"plain of encrypted":    {server.ConfigSpec{Image: "golden", AskedEncrypted: &no}, refusal.Usage},
		"encrypted of plain":    {server.ConfigSpec{Image: "open", AskedEncrypted: &yes}, refusal.Usage},
		"a key for plain":       {server.ConfigSpec{Image: "open", System: server.DiskSpec{Key: "mine"}}, refusal.Usage},
		"another key":           {server.ConfigSpec{Image: "golden", System: server.DiskSpec{Key: "other"}}, refusal.Usage},
		"sectors":               {server.ConfigSpec{Image: "golden", System: server.DiskSpec{SectorSize: 4096}}, refusal.Usage},
		"smaller":               {server.ConfigSpec{Image: "golden", System: server.DiskSpec{Size: 512}}, refusal.Usage},
		"no sectors":            {server.ConfigSpec{Image: "golden", System: server.DiskSpec{Size: mib + 1}}, refusal.Usage},
		"data":                  {server.ConfigSpec{Image: "golden", Data: []server.DiskSpec{{Size: 1, SectorSize: 512}}}, refusal.Usage},
		"a key for plain data":  {server.ConfigSpec{Image: "golden", Data: []server.DiskSpec{{Size: mib, SectorSize: 512, Key: "mine"}}}, refusal.Usage},
		"CPUs":                  {server.ConfigSpec{Image: "golden", CPUs: 1000}, refusal.Usage},
		"memory of a server":    {server.ConfigSpec{Server: "web", Memory: 1}, refusal.Usage},
		"the name of an image":  {server.ConfigSpec{Name: "golden", Server: "web"}, refusal.Busy},
		"what can't be a name":  {server.ConfigSpec{Name: "a b", Image: "golden"}, refusal.Usage},
		"too many disks":        {server.ConfigSpec{Image: "golden", Data: make([]server.DiskSpec, 24)}, refusal.Usage},
		"a key that is nowhere": {server.ConfigSpec{Image: "golden", Data: []server.DiskSpec{{Size: mib, SectorSize: 512, Encrypted: true, Key: "nobody"}}}, refusal.NotFound},
	} {
		c.spec.Project = "default"
		if c.spec.Name == "" {
			c.spec.Name = "c"
		}
		_, err := r.CreateConfig(t.Context(), name, c.spec)
		if refusal.CodeOf(err) != c.code || refusal.From(err).Hint == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after := r.state(); after != before {
		t.Errorf("refused configurations left\n%s\nbefore:\n%s", after, before)
	}
	c, err := r.CreateConfig(t.Context(), "config", server.ConfigSpec{Project: "default", Name: "c", Image: "golden", System: server.DiskSpec{Size: 2 * mib, Key: "mine"}, CPUs: 2})
	if err != nil || c.Owned || c.CPUs != 2 || c.Disks[0].Size != 2*mib || c.Disks[0].SectorSize != 512 {
		t.Errorf("%+v, %v", c, err)
	}
	for name, g := range map[string]server.GroupSpec{
		"no maximum":       {Name: "g", Config: "c"},
		"a large maximum":  {Name: "g", Config: "c", Max: 101},
		"minimum":          {Name: "g", Config: "c", Min: 3, Max: 2},
		"negative":         {Name: "g", Config: "c", Min: -1, Max: 2},
		"too long":         {Name: strings.Repeat("n", 112), Config: "c", Max: 2},
		"what is no name":  {Name: "-", Config: "c", Max: 2},
		"no configuration": {Name: "g", Max: 2},
	} {
		g.Project = "default"
		want := refusal.Usage
		if name == "no configuration" {
			want = refusal.NotFound
		}
		_, err := r.CreateGroup(t.Context(), name, g, nil)
		if refusal.CodeOf(err) != want || refusal.From(err).Hint == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	long := strings.Repeat("n", 111)
	_, err = r.CreateGroup(t.Context(), "long", server.GroupSpec{Project: "default", Name: long, Config: "c", Min: 1, Max: 2}, nil)
	must(t, err)
	for _, n := range []int{0, 3, -1} {
		_, err = r.Scale(t.Context(), "scale", "default", long, n, nil)
		wantCode(t, err, refusal.Usage)
	}
	r.empty()
}

func TestWhatHoldsWhat(t *testing.T) {
	r := golden(t)
	ctx := t.Context()
	r.group("g", 2)
	// A configuration of the image that another one owns.
	_, err := r.CreateConfig(ctx, "second", server.ConfigSpec{Project: "default", Name: "second", Image: "c"})
	must(t, err)
	_, err = r.CreateConfig(ctx, "third", server.ConfigSpec{Project: "default", Name: "third", Image: "golden"})
	must(t, err)
	_, err = r.volumes.DeleteImage(ctx, "x", "default", "golden")
	wantCode(t, err, refusal.Busy, "third")
	_, err = r.volumes.DeleteImage(ctx, "x", "default", "c")
	wantCode(t, err, refusal.Busy, "and of 1 more")
	_, err = r.DeleteConfig(ctx, "x", "default", "c")
	wantCode(t, err, refusal.Busy, "group g")
	wantCode(t, r.Delete(ctx, "x", "default", "g-1", false), refusal.Busy, "group g")
	wantCode(t, r.Delete(ctx, "x", "default", "g-1", true), refusal.Busy, "group g")
	_, err = r.DetachDisk(ctx, "x", "default", "g-1", "g-1-system")
	wantCode(t, err, refusal.Busy, "group g")
	// A member that runs keeps the group from shrinking under it, and one that leaves can't be started.
	run, err := r.Begin(ctx, "default", "g-2")
	must(t, err)
	leaving, err := r.Leaving(ctx, "default", "g", 1)
	if err != nil || len(leaving) != 1 || leaving[0].Name != "g-2" || leaving[0].Status != server.Starting {
		t.Errorf("%+v, %v", leaving, err)
	}
	_, err = r.Scale(ctx, "x", "default", "g", 1, nil)
	wantCode(t, err, refusal.Busy, "g-2")
	_, err = r.DeleteGroup(ctx, "x", "default", "g", nil)
	wantCode(t, err, refusal.Busy, "g-2")
	run.End("")
	// An attached disk does, too, before anything is gone.
	before := r.state()
	r.with("g-2-data-1", func(*volume.Attachment) {
		_, err = r.Scale(ctx, "y", "default", "g", 1, nil)
		wantCode(t, err, refusal.Busy, "g-2-data-1")
		_, err = r.DeleteGroup(ctx, "x", "default", "g", nil)
		wantCode(t, err, refusal.Busy, "g-2-data-1")
	})
	r.with("web-data-2", func(*volume.Attachment) {
		wantCode(t, r.Delete(ctx, "x", "default", "web", false), refusal.Busy, "web-data-2")
	})
	if after := r.state(); after != before {
		t.Errorf("what was refused left\n%s\nbefore:\n%s", after, before)
	}
	// What a member was given outlives it.
	_, err = r.volumes.Create(ctx, "given", volume.Spec{Project: "default", Name: "given", Size: mib, SectorSize: 512})
	must(t, err)
	_, err = r.AttachDisk(ctx, "give", "default", "g-2", "given", false)
	must(t, err)
	_, err = r.Scale(ctx, "down", "default", "g", 1, nil)
	must(t, err)
	must(t, r.volumes.Delete(ctx, "delete", "default", "given"))
	deleted, err := r.DeleteGroup(ctx, "g", "default", "g", nil)
	if err != nil || len(deleted) != 1 || deleted[0] != "g-1" {
		t.Errorf("%v, %v", deleted, err)
	}
	_, err = r.DeleteConfig(ctx, "x", "default", "c")
	wantCode(t, err, refusal.Busy, "second")
	_, err = r.DeleteConfig(ctx, "z", "default", "second")
	must(t, err)
	layer, err := r.DeleteConfig(ctx, "w", "default", "c")
	if err != nil || layer == [16]byte{} {
		t.Errorf("the image's layer is %s, %v", layer, err)
	}
	_, err = r.volumes.Point(ctx, volume.ImageKind, "default", "c")
	wantCode(t, err, refusal.NotFound)
	_, err = r.DeleteConfig(ctx, "v", "default", "third")
	must(t, err)
	if _, err = r.volumes.Point(ctx, volume.ImageKind, "default", "golden"); err != nil {
		t.Errorf("an image that was there before its configuration is gone: %v", err)
	}
	r.whole()
	r.empty()
}

// A scaling that can't go on takes back what it made, says so, and can be done again.
func TestAScalingThatFailsHalfWay(t *testing.T) {
	r := golden(t)
	r.group("g", 1)
	_, err := r.volumes.Create(t.Context(), "in the way", volume.Spec{Project: "default", Name: "g-4-data-2", Size: mib, SectorSize: 512})
	must(t, err)
	before := strings.ReplaceAll(r.state(), "scaling-group", "")
	var done []int64
	_, err = r.Scale(t.Context(), "up", "default", "g", 5, func(n, of int64) {
		if done = append(done, n); of != 4 {
			t.Errorf("%d of %d", n, of)
		}
	})
	wantCode(t, err, refusal.Busy, "g-4-data-2", "g-4", "2 of 4", "as it was")
	if len(done) != 2 {
		t.Errorf("progress %v", done)
	}
	if after := strings.ReplaceAll(r.state(), "scaling-group", ""); after != before {
		t.Errorf("left behind\n%s\nbefore:\n%s", after, before)
	}
	g, err := r.Group(t.Context(), "default", "g")
	if err != nil || len(g.Members) != 1 || len(g.Warnings) > 0 {
		t.Errorf("%+v, %v", g, err)
	}
	// Numbers are not used again.
	up, err := r.Scale(t.Context(), "again", "default", "g", 3, nil)
	if err != nil || len(up.Made) != 2 || up.Made[0] != "g-6" {
		t.Errorf("%+v, %v", up, err)
	}
	// A group that fails leaves nothing.
	_, err = r.volumes.Create(t.Context(), "in the way too", volume.Spec{Project: "default", Name: "h-2-system", Size: mib, SectorSize: 512})
	must(t, err)
	before = r.state()
	_, err = r.CreateGroup(t.Context(), "h", server.GroupSpec{Project: "default", Name: "h", Config: "c", Min: 3, Max: 3}, nil)
	wantCode(t, err, refusal.Busy, "h-2-system", "nothing is left")
	if after := r.state(); after != before {
		t.Errorf("left behind\n%s\nbefore:\n%s", after, before)
	}
	r.whole()
	r.empty()
}

// Whoever asked may go away in the middle: what was made is taken back all the same.
func TestWhoScalesGoesAway(t *testing.T) {
	r := golden(t)
	r.smallGroup(1)
	before := strings.ReplaceAll(r.state(), "scaling-group", "")
	ctx, leave := context.WithCancel(t.Context())
	_, err := r.Scale(ctx, "up", "default", "g", 4, func(int64, int64) { leave() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
	if after := strings.ReplaceAll(r.state(), "scaling-group", ""); after != before {
		t.Errorf("left behind\n%s\nbefore:\n%s", after, before)
	}
	ctx, leave = context.WithCancel(t.Context())
	_, err = r.Create(ctx, "copy", copied("web"), volume.Work{Progress: func(int64, int64) { leave() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
	if after := strings.ReplaceAll(r.state(), "scaling-group", ""); after != before {
		t.Errorf("left behind\n%s\nbefore:\n%s", after, before)
	}
	// What goes, goes on going.
	ctx, leave = context.WithCancel(t.Context())
	_, err = r.DeleteGroup(ctx, "end", "default", "g", func(int64, int64) { leave() })
	must(t, err)
	r.whole()
	r.empty()
}
