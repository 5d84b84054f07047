package server_test

import (
	"slices"
	"testing"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/server"
	"nbdcrypt/pkg/volume"
)

// cut tells how something goes on after a cut of the power in it.
type cut struct {
	name   string
	before func(r *rig)       // comes first, with the power on
	verb   func(r *rig) error // where the power goes; it may be asked again with the same request
	after  func(r *rig, err error)
}

// members sees that a group has as many as before a scaling, or as after it, and that if it was answered.
func (r *rig) members(name string, one, other int, answered error, wanted int) {
	r.t.Helper()
	g, err := r.Group(r.t.Context(), "default", name)
	must(r.t, err)
	if n := len(g.Members); n != one && n != other || answered == nil && n != wanted || len(g.Warnings) > 0 {
		r.t.Errorf("group %s has %d members, the scaling ended with %v, %v", name, n, answered, g.Warnings)
	}
}

func (r *rig) there(get func() error, answered error) bool {
	r.t.Helper()
	err := get()
	if err != nil {
		wantCode(r.t, err, refusal.NotFound)
	}
	if answered == nil && err != nil {
		r.t.Errorf("what was answered is gone: %v", err)
	}
	return err == nil
}

var cuts = []cut{
	{"create", func(r *rig) {}, func(r *rig) error {
		_, err := r.Create(r.t.Context(), "create web", ofGolden("web"), volume.Work{})
		return err
	}, func(r *rig, made error) {
		r.there(func() error { _, err := r.Get(r.t.Context(), "default", "web"); return err }, made)
		r.create(ofGolden("web"))
		r.holds("web-system", 'g')
	}},
	{"create with a copy", func(r *rig) {}, func(r *rig) error {
		_, err := r.Create(r.t.Context(), "create web", copied("web"), volume.Work{})
		return err
	}, func(r *rig, made error) {
		r.there(func() error { _, err := r.Get(r.t.Context(), "default", "web"); return err }, made)
		r.create(copied("web"))
		r.holds("web-system", 'o')
	}},
	{"delete", func(r *rig) { r.create(ofGolden("web")) }, func(r *rig) error {
		return r.Delete(r.t.Context(), "delete", "default", "web", false)
	}, func(r *rig, deleted error) {
		_, err := r.Get(r.t.Context(), "default", "web")
		if deleted == nil || err != nil {
			wantCode(r.t, err, refusal.NotFound)
		} else {
			r.holds("web-system", 'g')
		}
		r.create(ofGolden("web2"))
	}},
	{"delete but keep disks", func(r *rig) { r.create(ofGolden("web")) }, func(r *rig) error {
		return r.Delete(r.t.Context(), "delete", "default", "web", true)
	}, func(r *rig, deleted error) { r.holds("web-system", 'g') }},
	{"attach", func(r *rig) {
		r.create(ofGolden("web"))
		_, err := r.volumes.Create(r.t.Context(), "more", volume.Spec{Project: "default", Name: "more", Size: mib, SectorSize: 512})
		must(r.t, err)
	}, func(r *rig) error {
		_, err := r.AttachDisk(r.t.Context(), "attach", "default", "web", "more", false)
		return err
	}, func(r *rig, _ error) {
		v, err := r.AttachDisk(r.t.Context(), "attach", "default", "web", "more", false)
		if err != nil || len(v.Disks) != 4 {
			r.t.Errorf("%+v, %v", v, err)
		}
	}},
	{"configuration of a server", func(r *rig) { r.create(ofGolden("web")) }, func(r *rig) error {
		_, err := r.CreateConfig(r.t.Context(), "config", server.ConfigSpec{Project: "default", Name: "c", Server: "web"})
		return err
	}, func(r *rig, made error) {
		there := r.there(func() error { _, err := r.Config(r.t.Context(), "default", "c"); return err }, made)
		_, err := r.volumes.Point(r.t.Context(), volume.ImageKind, "default", "c")
		if there != (err == nil) {
			r.t.Errorf("a configuration is there: %v; its image: %v", there, err)
		}
		_, err = r.CreateConfig(r.t.Context(), "config", server.ConfigSpec{Project: "default", Name: "c", Server: "web"})
		must(r.t, err)
		must(r.t, r.Preflight(r.t.Context(), "default", "c"))
	}},
	{"end of a configuration", func(r *rig) {
		r.create(ofGolden("web"))
		_, err := r.CreateConfig(r.t.Context(), "config", server.ConfigSpec{Project: "default", Name: "c", Server: "web"})
		must(r.t, err)
	}, func(r *rig) error {
		_, err := r.DeleteConfig(r.t.Context(), "delete", "default", "c")
		return err
	}, func(r *rig, deleted error) {
		_, err := r.Config(r.t.Context(), "default", "c")
		_, image := r.volumes.Point(r.t.Context(), volume.ImageKind, "default", "c")
		if deleted == nil || err != nil {
			wantCode(r.t, err, refusal.NotFound)
			wantCode(r.t, image, refusal.NotFound)
		} else {
			must(r.t, image)
		}
		r.holds("web-system", 'g')
	}},
	{"group", func(r *rig) { r.small() }, func(r *rig) error {
		_, err := r.CreateGroup(r.t.Context(), "group", server.GroupSpec{Project: "default", Name: "g", Config: "c", Min: 2, Max: 4}, nil)
		return err
	}, func(r *rig, made error) {
		if r.there(func() error { _, err := r.Group(r.t.Context(), "default", "g"); return err }, made) {
			r.members("g", 2, 2, made, 2)
		} else if n := len(r.serverNames()); n != 0 {
			r.t.Errorf("%d servers of a group that is not there", n)
		}
		_, err := r.CreateGroup(r.t.Context(), "group", server.GroupSpec{Project: "default", Name: "g", Config: "c", Min: 2, Max: 4}, nil)
		must(r.t, err)
		r.members("g", 2, 2, nil, 2)
	}},
	{"scale up", func(r *rig) { r.smallGroup(1) }, func(r *rig) error {
		_, err := r.Scale(r.t.Context(), "scale", "default", "g", 3, nil)
		return err
	}, func(r *rig, scaled error) {
		r.members("g", 1, 3, scaled, 3)
		v, err := r.Scale(r.t.Context(), "scale", "default", "g", 3, nil)
		must(r.t, err)
		if len(v.Made) != 2 {
			r.t.Errorf("it made %v", v.Made)
		}
		r.members("g", 3, 3, nil, 3)
		r.holds(v.Made[1]+"-system", 'g')
	}},
	{"scale down", func(r *rig) { r.smallGroup(3) }, func(r *rig) error {
		_, err := r.Scale(r.t.Context(), "scale", "default", "g", 1, nil)
		return err
	}, func(r *rig, scaled error) {
		r.members("g", 1, 3, scaled, 1)
		v, err := r.Scale(r.t.Context(), "scale", "default", "g", 1, nil)
		must(r.t, err)
		if len(v.Deleted) != 2 {
			r.t.Errorf("it deleted %v", v.Deleted)
		}
		r.members("g", 1, 1, nil, 1)
		r.holds("g-1-system", 'g')
	}},
	{"end of a group", func(r *rig) { r.smallGroup(2) }, func(r *rig) error {
		_, err := r.DeleteGroup(r.t.Context(), "delete", "default", "g", nil)
		return err
	}, func(r *rig, deleted error) {
		_, err := r.Group(r.t.Context(), "default", "g")
		if deleted == nil || err != nil {
			wantCode(r.t, err, refusal.NotFound)
			if n := len(r.serverNames()); n != 0 {
				r.t.Errorf("%d servers outlived their group", n)
			}
		} else {
			r.members("g", 2, 2, nil, 2)
		}
	}},
}

// copied is a server whose system disk is a copy of a plain image's data.
func copied(name string) server.Spec {
	return server.Spec{Project: "default", Name: name, Image: "open", System: server.DiskSpec{Encrypted: true, Key: "mine"}, Data: []server.DiskSpec{{Size: mib, SectorSize: 512}}}
}

// small makes a configuration of the image golden with one data disk.
func (r *rig) small() {
	r.t.Helper()
	_, err := r.CreateConfig(r.t.Context(), "config", server.ConfigSpec{Project: "default", Name: "c", Image: "golden", Data: []server.DiskSpec{{Size: mib, SectorSize: 512, Encrypted: true, Key: "other"}}})
	must(r.t, err)
}

func (r *rig) smallGroup(n int) {
	r.t.Helper()
	r.small()
	_, err := r.CreateGroup(r.t.Context(), "group", server.GroupSpec{Project: "default", Name: "g", Config: "c", Max: 4}, nil)
	must(r.t, err)
	_, err = r.Scale(r.t.Context(), "first", "default", "g", n, nil)
	must(r.t, err)
}

// The power goes after each operation of the catalog and the pool: what was answered holds, nothing is left that is not whole, and what was cut off can be asked for again.
func TestWhenThePowerGoes(t *testing.T) {
	for _, c := range cuts {
		t.Run(c.name, func(t *testing.T) {
			for n, done := 0, false; !done; n++ {
				r := golden(t)
				c.before(r)
				r.power.CutAfter(n)
				err := c.verb(r)
				if done = !r.power.Off(); done {
					r.power.CutAfter(-1)
					must(t, err)
				}
				r.again(n)
				r.whole()
				c.after(r, err)
				r.whole()
				r.empty()
				if t.Failed() {
					t.Fatalf("cut at %d, the verb ended with %v", n, err)
				}
				if n > 1000 {
					t.Fatal("it never ends")
				}
			}
		})
	}
}

// The power goes in a start that cleans up after a cut, at each operation: the next start ends it.
func TestWhenThePowerGoesInAStart(t *testing.T) {
	for verb, at := range map[string]int{"create": 8, "configuration of a server": 5, "group": 12, "scale up": 12, "scale down": 8, "end of a group": 5} {
		c := cuts[slices.IndexFunc(cuts, func(c cut) bool { return c.name == verb })]
		t.Run(c.name, func(t *testing.T) {
			for n, done := 0, false; !done; n++ {
				r := golden(t)
				c.before(r)
				r.power.CutAfter(at)
				err := c.verb(r)
				if err == nil || !r.power.Off() {
					t.Fatalf("it was not cut off: %v", err)
				}
				r.power.Resume()
				r.power.CutAfter(n)
				done = r.tryOpen() == nil
				r.power.CutAfter(-1)
				r.again(n)
				r.whole()
				c.after(r, err)
				r.empty()
				if t.Failed() {
					t.Fatalf("cut at %d", n)
				}
			}
		})
	}
}

// Every commit in turn is one of which nobody is told how it ended: it is found out, and what was asked for is done, or not, as a whole.
func TestLostAnswers(t *testing.T) {
	for _, c := range cuts {
		for name, commits := range map[string]bool{"committed": true, "not committed": false} {
			t.Run(c.name+" "+name, func(t *testing.T) {
				for n, done := 0, false; !done; n++ {
					r := golden(t)
					c.before(r)
					left := n
					r.ask = func() error {
						if left--; left == -1 {
							r.unknown.Inject(commits)
						}
						return nil
					}
					err := c.verb(r)
					done = left >= 0
					r.ask = nil
					if err != nil {
						t.Errorf("the answer of commit %d was lost, and it ended with %v", n, err)
					}
					r.whole()
					c.after(r, err)
					r.whole()
					r.empty()
					if t.Failed() {
						t.Fatalf("answer %d", n)
					}
				}
			})
		}
	}
}
