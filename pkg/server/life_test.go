package server_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/server"
	"nbdcrypt/pkg/volume"
)

func TestLifeOfAServer(t *testing.T) {
	r := golden(t)
	before := r.state()
	v := r.create(ofGolden("web"))
	if v.Status != server.Stopped || v.CPUs != server.DefaultCPUs || v.Memory != server.DefaultMemory || v.Network != server.NetworkUser || len(v.Disks) != 3 ||
		v.Image == nil || v.Image.Name != "golden" || v.Group != nil || v.Run != nil {
		t.Errorf("%+v", v)
	}
	for i, want := range []struct{ role, name string }{{"system", "web-system"}, {"data", "web-data-1"}, {"data", "web-data-2"}} {
		d := r.disk(v.Disks[i].ID.String())
		if v.Disks[i].Role != want.role || v.Disks[i].Name != want.name || d.Name != want.name || d.Bootable != (i == 0) {
			t.Errorf("disk %d: %+v, %+v", i, v.Disks[i], d)
		}
	}
	r.holds("web-system", 'g')
	r.start()
	again, err := r.Get(t.Context(), "default", v.ID.String()) // ids work where names do
	must(t, err)
	if again.Name != "web" || len(r.Finished()) != 0 {
		t.Errorf("after a start: %+v, %v", again, r.Finished())
	}
	r.whole()
	must(t, r.Delete(t.Context(), "delete", "default", "web", false))
	if after := r.state(); after != before {
		t.Errorf("left behind:\n%s\nbefore:\n%s", after, before)
	}
	r.empty()
}

func TestTheSameRequestAgain(t *testing.T) {
	r := golden(t)
	v := r.create(ofGolden("web"))
	if again := r.create(ofGolden("web")); again.ID != v.ID {
		t.Error("a repeated request made another server")
	}
	_, err := r.Create(t.Context(), "another", ofGolden("web"), volume.Work{})
	wantCode(t, err, refusal.Busy, "web")
	spec := server.ConfigSpec{Project: "default", Name: "c", Server: "web"}
	c, err := r.CreateConfig(t.Context(), "config", spec)
	must(t, err)
	if again, err := r.CreateConfig(t.Context(), "config", spec); err != nil || again.ID != c.ID {
		t.Errorf("%+v, %v", again, err)
	}
	_, err = r.CreateConfig(t.Context(), "another config", spec)
	wantCode(t, err, refusal.Busy, "c")
	group := server.GroupSpec{Project: "default", Name: "g", Config: "c", Min: 1, Max: 5}
	g, err := r.CreateGroup(t.Context(), "group", group, nil)
	must(t, err)
	if again, err := r.CreateGroup(t.Context(), "group", group, nil); err != nil || again.ID != g.ID || len(again.Members) != 1 {
		t.Errorf("%+v, %v", again, err)
	}
	_, err = r.CreateGroup(t.Context(), "another group", group, nil)
	wantCode(t, err, refusal.Busy, "g")
	for range 2 {
		up, err := r.Scale(t.Context(), "up", "default", "g", 3, nil)
		if err != nil || !slices.Equal(up.Made, []string{"g-2", "g-3"}) || len(up.Members) != 3 {
			t.Errorf("%+v, %v", up, err)
		}
	}
	for range 2 {
		down, err := r.Scale(t.Context(), "down", "default", "g", 2, nil)
		if err != nil || !slices.Equal(down.Deleted, []string{"g-3"}) || len(down.Members) != 2 {
			t.Errorf("%+v, %v", down, err)
		}
	}
	r.create(server.Spec{Project: "default", Name: "spare", Image: "open", AsImage: true})
	_, err = r.DetachDisk(t.Context(), "detach", "default", "spare", "spare-system")
	must(t, err)
	_, err = r.DetachDisk(t.Context(), "detach", "default", "spare", "spare-system")
	must(t, err)
	for range 2 {
		v, err := r.AttachDisk(t.Context(), "attach", "default", "web", "spare-system", false)
		if err != nil || len(v.Disks) != 4 {
			t.Errorf("%+v, %v", v, err)
		}
	}
	r.whole()
	r.empty()
}

func TestDisksComeAndGo(t *testing.T) {
	r := golden(t)
	r.create(ofGolden("web"))
	r.create(server.Spec{Project: "default", Name: "db", Image: "open", AsImage: true})
	ctx := t.Context()
	// A disk of a server is not deleted; detached it is, or becomes another's.
	wantCode(t, r.volumes.Delete(ctx, "x", "default", "web-data-1"), refusal.Busy, "web", "data")
	wantCode(t, r.volumes.Delete(ctx, "x", "default", "web-system"), refusal.Busy, "system")
	_, err := r.AttachDisk(ctx, "x", "default", "db", "web-data-1", false)
	wantCode(t, err, refusal.Busy, "web")
	v, err := r.DetachDisk(ctx, "d1", "default", "web", "web-system")
	must(t, err)
	if len(v.Disks) != 2 || v.Image != nil || v.Disks[0].Role != server.DataRole {
		t.Errorf("%+v", v)
	}
	_, err = r.Begin(ctx, "default", "web")
	wantCode(t, err, refusal.Busy, "no system disk")
	// What was a system disk is a bootable data disk, and may become a system disk again.
	v, err = r.AttachDisk(ctx, "a1", "default", "db", "web-system", false)
	if err != nil || len(v.Disks) != 2 || v.Disks[1].Role != server.DataRole || !r.disk("web-system").Bootable {
		t.Errorf("%+v, %v", v, err)
	}
	_, err = r.DetachDisk(ctx, "d2", "default", "db", "web-system")
	must(t, err)
	_, err = r.AttachDisk(ctx, "x", "default", "db", "web-system", true)
	wantCode(t, err, refusal.Busy, "db-system")
	_, err = r.volumes.Create(ctx, "empty", volume.Spec{Project: "default", Name: "empty", Size: mib, SectorSize: 512})
	must(t, err)
	_, err = r.AttachDisk(ctx, "x", "default", "web", "empty", true)
	wantCode(t, err, refusal.Busy, "not bootable")
	v, err = r.AttachDisk(ctx, "a2", "default", "web", "web-system", true)
	if err != nil || v.Disks[0].Role != server.SystemRole || v.Image == nil || v.Image.Name != "golden" {
		t.Errorf("%+v, %v", v, err)
	}
	_, err = r.AttachDisk(ctx, "x", "default", "web", "none", false)
	wantCode(t, err, refusal.NotFound)
	_, err = r.DetachDisk(ctx, "x", "default", "web", "empty")
	wantCode(t, err, refusal.NotFound, "web", "empty")
	_, err = r.volumes.Create(ctx, "shared", volume.Spec{Project: "default", Name: "shared", Size: mib, SectorSize: 512, Shared: true})
	must(t, err)
	_, err = r.AttachDisk(ctx, "x", "default", "web", "shared", false)
	wantCode(t, err, refusal.Busy, "shared")
	r.whole()
	// With --keep-disks they stay, and are nobody's.
	must(t, r.Delete(ctx, "delete", "default", "web", true))
	must(t, r.volumes.Delete(ctx, "y", "default", "web-system"))
	r.whole()
	r.empty()
}

func TestAtMost23DataDisks(t *testing.T) {
	r := golden(t)
	spec := server.Spec{Project: "default", Name: "web", Image: "open", AsImage: true}
	for range server.MaxDataDisks {
		spec.Data = append(spec.Data, server.DiskSpec{Size: mib, SectorSize: 512})
	}
	v := r.create(spec)
	if last := v.Disks[len(v.Disks)-1]; len(v.Disks) != 24 || last.Name != "web-data-23" {
		t.Errorf("%d disks, %+v", len(v.Disks), last)
	}
	_, err := r.volumes.Create(t.Context(), "more", volume.Spec{Project: "default", Name: "more", Size: mib, SectorSize: 512})
	must(t, err)
	_, err = r.AttachDisk(t.Context(), "x", "default", "web", "more", false)
	wantCode(t, err, refusal.Busy, "23")
	r.whole()
	r.empty()
}

func TestRuns(t *testing.T) {
	r := golden(t)
	ctx := t.Context()
	r.create(ofGolden("web"))
	status := func(want server.Status) server.Server {
		t.Helper()
		v, err := r.Get(ctx, "default", "web")
		if err != nil || v.Status != want {
			t.Errorf("%s, %v, want %s", v.Status, err, want)
		}
		return v
	}
	run, err := r.Begin(ctx, "default", "web")
	must(t, err)
	if v := run.Server(); v.Name != "web" || len(v.Disks) != 3 {
		t.Errorf("%+v", v)
	}
	status(server.Starting)
	_, err = r.Begin(ctx, "default", "web")
	wantCode(t, err, refusal.Busy, "starting")
	_, err = r.DetachDisk(ctx, "x", "default", "web", "web-data-1")
	wantCode(t, err, refusal.Busy, "starting")
	run.Running(server.RunInfo{By: "root", PID: 7, Since: time.Now()})
	if v := status(server.Running); v.Run == nil || v.Run.PID != 7 {
		t.Errorf("%+v", v)
	}
	wantCode(t, r.Delete(ctx, "x", "default", "web", false), refusal.Busy, "running")
	wantCode(t, r.Delete(ctx, "x", "default", "web", true), refusal.Busy, "running")
	// Data disks come and go while it runs, the system disk stays.
	_, err = r.DetachDisk(ctx, "x", "default", "web", "web-system")
	wantCode(t, err, refusal.Busy, "system disk")
	plan, err := r.PlanDetach(ctx, "default", "web", "web-data-1")
	must(t, err)
	if !plan.Running || plan.Disk.Name != "web-data-1" || len(plan.Server.Disks) != 3 {
		t.Errorf("%+v", plan)
	}
	_, err = r.PlanDetach(ctx, "default", "web", "web-data-2")
	wantCode(t, err, refusal.Busy, "disk")
	left := make(chan error)
	go func() {
		_, err := run.Left(ctx, "left", run.Server().Disks[2].ID) // waits for the other
		left <- err
	}()
	v, err := plan.Commit(ctx, "detach")
	plan.Free()
	if err != nil || len(v.Disks) != 2 {
		t.Errorf("%+v, %v", v, err)
	}
	must(t, <-left)
	if _, err := run.Left(ctx, "left", run.Server().Disks[0].ID); refusal.CodeOf(err) != refusal.Busy {
		t.Errorf("the system disk left: %v", err)
	}
	v, err = r.AttachDisk(ctx, "attach", "default", "web", "web-data-1", false)
	if err != nil || len(v.Disks) != 2 {
		t.Errorf("%+v, %v", v, err)
	}
	_, err = r.AttachDisk(ctx, "x", "default", "web", "web-data-2", true)
	wantCode(t, err, refusal.Busy, "runs")
	run.Paused("the pool is full")
	if v := status(server.Running); v.Paused != "the pool is full" {
		t.Errorf("%+v", v)
	}
	run.Paused("")
	run.Stopping()
	run.Failing("no room for the last sync")
	if v := status(server.Stopping); v.Failing == "" || v.Paused != "" {
		t.Errorf("%+v", v)
	}
	run.End("it was told to stop")
	run.Running(server.RunInfo{}) // too late, and of no effect
	if v := status(server.Stopped); v.Ended != "it was told to stop" || v.Run != nil || v.Failing != "" {
		t.Errorf("%+v", v)
	}
	r.whole()
	r.empty()
}

func TestALateReportIsNotOfTheNextRun(t *testing.T) {
	r := golden(t)
	r.create(server.Spec{Project: "default", Name: "web", Image: "open", AsImage: true})
	first, err := r.Begin(t.Context(), "default", "web")
	must(t, err)
	first.End("killed")
	second, err := r.Begin(t.Context(), "default", "web")
	must(t, err)
	first.End("once more")
	first.Stopping()
	if v, err := r.Get(t.Context(), "default", "web"); err != nil || v.Status != server.Starting || v.Ended != "killed" {
		t.Errorf("%+v, %v", v, err)
	}
	second.End("")
	r.empty()
}

func TestADiskThatIsMissingKeepsAServerFromStarting(t *testing.T) {
	r := golden(t)
	r.create(ofGolden("web"))
	must(t, r.volumes.DeleteHeld(t.Context(), "gone", "default", "web-data-1"))
	_, err := r.Begin(t.Context(), "default", "web")
	wantCode(t, err, refusal.Damaged, "web-data-1")
	_, err = r.DetachDisk(t.Context(), "detach", "default", "web", "web-data-1")
	must(t, err)
	run, err := r.Begin(t.Context(), "default", "web")
	must(t, err)
	run.End("")
	r.empty()
}

func TestListsAreInTheOrderOfNames(t *testing.T) {
	r := golden(t)
	for _, name := range []string{"c", "a", "b"} {
		r.create(server.Spec{Project: "default", Name: name, Image: "open", AsImage: true})
	}
	if names := r.serverNames(); !slices.Equal(names, []string{"a", "b", "c"}) {
		t.Error(names)
	}
	servers, configs, groups, err := r.Count(t.Context(), "default")
	if servers != 3 || configs != 0 || groups != 0 || err != nil {
		t.Error(servers, configs, groups, err)
	}
	if servers, _, _, _ := r.Count(t.Context(), "defaul"); servers != 0 {
		t.Errorf("%d servers of a project that has none", servers)
	}
	_, err = r.Get(t.Context(), "other", "a")
	wantCode(t, err, refusal.NotFound)
}

// What a member writes is its own: others, and the image, stay what they are.
func TestMembersWriteToLayersOfTheirOwn(t *testing.T) {
	r := golden(t)
	r.group("g", 2)
	r.with("g-1-system", func(a *volume.Attachment) {
		_, err := a.Device.WriteAt(bytes.Repeat([]byte{'w'}, mib), 0)
		must(t, err)
	})
	r.holds("g-1-system", 'w')
	r.holds("g-2-system", 'g')
	up, err := r.Scale(t.Context(), "up", "default", "g", 3, nil)
	if err != nil || len(up.Members) != 3 {
		t.Errorf("%+v, %v", up, err)
	}
	r.holds("g-3-system", 'g')
	r.empty()
}

// group makes a group of so many members of a configuration made of a server that is like ofGolden.
func (r *rig) group(name string, n int) server.Group {
	r.t.Helper()
	r.create(ofGolden("web"))
	_, err := r.CreateConfig(r.t.Context(), "config", server.ConfigSpec{Project: "default", Name: "c", Server: "web"})
	must(r.t, err)
	g, err := r.CreateGroup(r.t.Context(), "group "+name, server.GroupSpec{Project: "default", Name: name, Config: "c", Min: min(1, n), Max: 10}, nil)
	must(r.t, err)
	if n > 1 {
		_, err = r.Scale(r.t.Context(), "first "+name, "default", name, n, nil)
		must(r.t, err)
	}
	return g
}
