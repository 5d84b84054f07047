package daemon

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/audit"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// `server stop` answers once the disks are detached, with what the runner says of it.
func TestServerStop(t *testing.T) {
	d, c := farm(t)
	_, err := c.ServerStop(t.Context(), "web", control.ServerStop{}, false)
	code(t, err, refusal.Busy, "stopped")
	_, err = c.ServerStop(t.Context(), "web", control.ServerStop{Timeout: "soon"}, false)
	code(t, err, refusal.Usage)
	for _, force := range []bool{false, true} {
		r := runs(t, d, c, "web")
		var order control.RunOrder
		r.do(func(o control.RunOrder) control.RunReport {
			order = o
			return control.RunReport{Warning: "the guest did not shut down in time, and was switched off"}
		})
		s, err := c.ServerStop(t.Context(), "web", control.ServerStop{Timeout: "3s", Force: force}, false)
		if err != nil || s.Status != control.ServerStopped || s.Ended != "the guest shut down" || !slices.ContainsFunc(s.Warnings, func(w string) bool { return strings.Contains(w, "switched off") }) {
			t.Errorf("%+v, %v", s, err)
		}
		if force && order.Do != control.OrderKill || !force && (order.Do != control.OrderStop || order.Timeout != "3s") {
			t.Errorf("the order: %+v", order)
		}
		rests(t, d, c, "web")
		if rec := lastOf(t, d, "server stop"); rec.Outcome != audit.OK || rec.Resource != "web" {
			t.Errorf("%+v", rec)
		}
	}
}

// A runner that answers an order and has gone has answered it.
func TestAnswerBeforeTheEnd(t *testing.T) {
	d := start(t)
	l := &lease{d: d, cut: make(chan struct{})}
	close(l.cut)
	for range 100 {
		answer := make(chan control.RunReport, 1)
		answer <- control.RunReport{Warning: "it was switched off"}
		if in, err := l.answer(t.Context(), answer, time.Minute); err != nil || in.Warning != "it was switched off" {
			t.Fatalf("%+v, %v", in, err)
		}
	}
}

// Rule A23: a server whose disk has a key that can't be used any more is stopped once that was confirmed; its guest is not even asked before.
func TestRuleA23_ServerStopAsksFirst(t *testing.T) {
	d, c := farm(t)
	r := runs(t, d, c, "web")
	must(t, d, "POST /v1/keys/b/disable", "")
	_, err := c.ServerStop(t.Context(), "web", control.ServerStop{}, false)
	code(t, err, refusal.Confirm, "web-data-2", "key b", "Disabled", "--yes")
	if len(r.told) != 0 {
		t.Errorf("the runner was told %v", r.told)
	}
	s, err := c.ServerStop(t.Context(), "web", control.ServerStop{}, true)
	if err != nil || !strings.Contains(s.Ended, "disk web-data-2 can't be attached again") {
		t.Errorf("%+v, %v", s, err)
	}
	if rec := lastOf(t, d, "server.ended"); !strings.Contains(rec.Resource, "web-data-2 can't be attached again") {
		t.Errorf("%+v", rec)
	}
}

// Rule A23: a run that ends by itself tells of a disk that it was given meanwhile too.
func TestRuleA23_EndTellsOfDisksGivenMeanwhile(t *testing.T) {
	d, c := farm(t)
	must(t, d, control.RouteKeyCreate, `{"alias":"own"}`)
	must(t, d, control.RouteDiskCreate, `{"name":"more","size":1048576,"key":"own"}`)
	r := runs(t, d, c, "web")
	if _, err := c.ServerAttach(t.Context(), "web", control.ServerDiskChange{Disk: "more"}); err != nil {
		t.Fatal(err)
	}
	must(t, d, "POST /v1/keys/own/disable", "")
	_ = r.line.Close()
	if s := rests(t, d, c, "web"); !strings.Contains(s.Ended, "disk more can't be attached again") {
		t.Errorf("ended: %s", s.Ended)
	}
}

// Anybody with the role may stop anybody's server; the record names both.
func TestServerStopOfAnother(t *testing.T) {
	d, c := farm(t)
	must(t, d, control.RouteRoleGrant, `{"user":"3002","role":"user"}`)
	runs(t, d, c, "web")
	by(t, d, 3002, "POST /v1/servers/web/stop", "{}", refusal.OK)
	if rec := lastOf(t, d, "server stop"); rec.UID != 3002 || rec.Resource != "web run by "+d.self.User {
		t.Errorf("%+v", rec)
	}
}

// With --force a runner that does nothing loses the disks; without, the stop says that it does not answer.
func TestRunnerThatDoesNotAnswer(t *testing.T) {
	d, c := farm(t)
	d.runnerTime = 50 * time.Millisecond
	r := runs(t, d, c, "web")
	block := make(chan struct{})
	defer close(block)
	r.do(func(control.RunOrder) control.RunReport { <-block; return control.RunReport{} })
	_, err := c.ServerStop(t.Context(), "web", control.ServerStop{Timeout: "0s"}, false)
	code(t, err, refusal.Failed, "did not answer", "--force")
	s, err := c.ServerStop(t.Context(), "web", control.ServerStop{Force: true}, false)
	if err != nil || !strings.Contains(strings.Join(s.Warnings, " "), "taken from it") {
		t.Errorf("%+v, %v", s, err)
	}
	rests(t, d, c, "web")
	// It may come to itself later: what was switched off stays off, and is started by who wants that.
	_, err = asked(t, c, "web", control.ServerRun{Token: aToken, Continues: r.disks()})
	code(t, err, refusal.Damaged, "by force")
	if s := rests(t, d, c, "web"); s.Ended == "" {
		t.Error("how it ended is forgotten")
	}
	again := runs(t, d, c, "web")
	_ = again.line.Close()
	rests(t, d, c, "web")
	again = runs(t, d, c, "web", again.disks()...)
	_ = again.line.Close()
	rests(t, d, c, "web")
}

// An end that fails is told and tried again: by `server stop` at once. Meanwhile everybody may detach the disks who could.
func TestServerEndThatFails(t *testing.T) {
	d, c := farm(t)
	r := runs(t, d, c, "web")
	held, free := make(chan struct{}), make(chan struct{})
	go func() { // somebody works on a disk
		_, _ = d.volumes.Detach(context.Background(), "held", volume.DetachSpec{Project: "default", Disk: "web-data-1", All: true,
			Drain: func(*volume.Attachment) error { close(held); <-free; return errors.New("it stays") }})
	}()
	<-held
	_ = r.line.Close()
	await(t, "it says why it does not end", func() bool {
		s := showServer(t, c, "web")
		return s.Status == control.ServerStopping && strings.Contains(strings.Join(s.Warnings, " "), "web-data-1")
	})
	_, err := asked(t, c, "web", control.ServerRun{Token: aToken})
	code(t, err, refusal.Busy)
	_, err = c.ServerStop(t.Context(), "web", control.ServerStop{}, false)
	code(t, err, refusal.Busy, "web-data-1")
	close(free)
	await(t, "it can be stopped", func() bool {
		_, err := c.ServerStop(t.Context(), "web", control.ServerStop{}, false)
		return err == nil || strings.Contains(err.Error(), "is stopped")
	})
	rests(t, d, c, "web")
}

// A disk that somebody detached by hand from a server whose end fails, and attached for himself, is his: the end that is tried again leaves it alone.
func TestServerEndLeavesWhatIsAnothers(t *testing.T) {
	d, c := farm(t)
	r := runs(t, d, c, "web")
	must(t, d, "POST /v1/keys/b/disable", "")
	held, free, gone := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		_, _, err := d.detach(&call{ctx: t.Context(), caller: d.self, request: newRequest(), project: "default"}, volume.DetachSpec{Project: "default", Disk: "web-data-2", All: true,
			Stranding: func(keystore.Info) error { close(held); <-free; return nil }})
		gone <- err
	}()
	<-held
	_ = r.line.Close()
	await(t, "it says why it does not end", func() bool {
		return strings.Contains(strings.Join(showServer(t, c, "web").Warnings, " "), "can't be detached yet")
	})
	must(t, d, "POST /v1/keys/b/enable", "")
	close(free)
	if err := <-gone; err != nil {
		t.Fatal(err)
	}
	mine, err := c.Attach(t.Context(), "web-data-2", control.Attach{})
	if err != nil || mine.URI == "" {
		t.Fatalf("%+v, %v", mine, err)
	}
	_, err = c.ServerStop(t.Context(), "web", control.ServerStop{}, false)
	if err != nil {
		code(t, err, refusal.Busy, "is stopped") // it had ended by itself
	}
	if v, err := c.DiskShow(t.Context(), "web-data-2"); err != nil || len(v.Attachments) != 1 || v.Attachments[0].ID != mine.Attachment {
		t.Errorf("%+v, %v", v, err)
	}
}

// Stops, a runner that goes and a guest that ends, all at once: one end, and whoever stopped it is told so.
func TestServerEndsOnce(t *testing.T) {
	d, c := farm(t)
	for i := range 4 {
		r := runs(t, d, c, "web")
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				_, err := c.ServerStop(t.Context(), "web", control.ServerStop{Force: i%2 == 0}, false)
				if err != nil && refusal.CodeOf(err) != refusal.Busy {
					t.Error(err)
				}
			})
		}
		wg.Go(func() { _ = r.line.Close() })
		wg.Wait()
		rests(t, d, c, "web")
		if n := d.recorded(t, "server.ended", "ok"); n != i+1 {
			t.Errorf("%d records of %d ends", n, i+1)
		}
	}
}

// A daemon that stops waits for no guest, whatever was asked of it.
func TestDaemonStopsBesideAServerStop(t *testing.T) {
	d, c := farm(t)
	r := runs(t, d, c, "web")
	told := make(chan struct{})
	block := make(chan struct{})
	defer close(block)
	r.do(func(control.RunOrder) control.RunReport { close(told); <-block; return control.RunReport{} })
	ended := make(chan error, 1)
	go func() {
		_, err := c.ServerStop(t.Context(), "web", control.ServerStop{}, false)
		ended <- err
	}()
	<-told
	before := time.Now()
	d.halt(t)
	if took := time.Since(before); took > drainTime {
		t.Errorf("the stop took %v", took)
	}
	code(t, <-ended, refusal.Unreachable)
	d = served(t, d.o)
	if s := showServer(t, c, "web"); s.Status != control.ServerStopped {
		t.Errorf("%+v", s)
	}
	r = runs(t, d, c, "web", r.disks()...)
	if _, err := c.ServerStop(t.Context(), "web", control.ServerStop{}, false); err != nil {
		t.Error(err)
	}
}

// A guest that stands still is shown, and told of once in a while.
func TestPausedGuest(t *testing.T) {
	d, c := farm(t)
	r := runs(t, d, c, "web")
	for range 3 {
		r.say(control.RunReport{Paused: "the pool is full"})
	}
	await(t, "it is shown", func() bool {
		return strings.Contains(strings.Join(showServer(t, c, "web").Warnings, " "), "the pool is full")
	})
	r.say(control.RunReport{Resumed: true})
	await(t, "it is shown no more", func() bool { return len(showServer(t, c, "web").Warnings) == 0 })
	_ = d
}

// Disks come and go while a server runs.
func TestDisksOfAServerThatRuns(t *testing.T) {
	d, c := farm(t)
	must(t, d, control.RouteDiskCreate, `{"name":"more","size":2097152,"key":"b"}`)
	r := runs(t, d, c, "web")
	var plugged *control.RunDisk
	r.do(func(o control.RunOrder) control.RunReport { plugged = o.Disk; return control.RunReport{} })
	s, err := c.ServerAttach(t.Context(), "web", control.ServerDiskChange{Disk: "more"})
	if err != nil || len(s.Disks) != 5 || s.Disks[4].Status != "in-use" || plugged == nil || plugged.Size != 2<<20 || !strings.HasPrefix(plugged.Export, aToken) {
		t.Fatalf("%+v, %+v, %v", s, plugged, err)
	}
	r.first.Disks = append(r.first.Disks, *plugged)
	if _, err := r.dial(4).WriteAt([]byte("plugged"), 0); err != nil {
		t.Error(err)
	}
	_, err = c.ServerDetach(t.Context(), "web", control.ServerDiskChange{Disk: "web-system"}, false)
	code(t, err, refusal.Busy, "system")
	must(t, d, "POST /v1/keys/b/disable", "")
	_, err = c.ServerDetach(t.Context(), "web", control.ServerDiskChange{Disk: "more"}, false)
	code(t, err, refusal.Confirm, "more", "key b")
	s, err = c.ServerDetach(t.Context(), "web", control.ServerDiskChange{Disk: "more"}, true)
	if err != nil || len(s.Disks) != 4 {
		t.Fatalf("%+v, %v", s, err)
	}
	if v, err := c.DiskShow(t.Context(), "more"); err != nil || v.Status != "available" || v.Server != nil {
		t.Errorf("%+v, %v", v, err)
	}
	_, err = c.ServerAttach(t.Context(), "web", control.ServerDiskChange{Disk: "more"})
	code(t, err, refusal.KeyForbids, "more", "key b")
	if want := []string{control.OrderPlug, control.OrderUnplug}; !slices.Equal(r.told, want) {
		t.Errorf("the runner was told %v", r.told)
	}
	must(t, d, "POST /v1/keys/b/enable", "")
	if _, err := c.ServerStop(t.Context(), "web", control.ServerStop{}, false); err != nil {
		t.Error(err)
	}
	rests(t, d, c, "web")
}

// A disk that can't be plugged is nobody's afterwards; one that the guest does not give away stays, until it does.
func TestPlugsThatFail(t *testing.T) {
	d, c := farm(t)
	must(t, d, control.RouteDiskCreate, `{"name":"more","size":1048576,"key":"b"}`)
	r := runs(t, d, c, "web")
	r.do(func(control.RunOrder) control.RunReport {
		return control.RunReport{Error: control.ErrorOf(refusal.New(refusal.Failed, "h", "no slot is left"))}
	})
	_, err := c.ServerAttach(t.Context(), "web", control.ServerDiskChange{Disk: "more"})
	code(t, err, refusal.Failed, "no slot is left")
	if v, err := c.DiskShow(t.Context(), "more"); err != nil || v.Status != "available" || v.Server != nil {
		t.Errorf("%+v, %v", v, err)
	}
	r.do(func(o control.RunOrder) control.RunReport {
		return control.RunReport{Error: control.ErrorOf(refusal.New(refusal.Busy, "h", "the guest has not let go"))}
	})
	_, err = c.ServerDetach(t.Context(), "web", control.ServerDiskChange{Disk: "web-data-2"}, false)
	code(t, err, refusal.Busy, "the guest has not let go")
	if s := showServer(t, c, "web"); len(s.Disks) != 4 || s.Disks[2].Status != "in-use" {
		t.Errorf("%+v", s.Disks)
	}
	id := r.first.Disks[2].DiskID
	r.say(control.RunReport{Left: r.first.Disks[0].DiskID}) // no guest gives that away
	r.say(control.RunReport{Left: "none"})
	before := d.recorded(t, "server.disk-left", "ok") + 1
	for range 50 { // what it says too often is done once
		r.say(control.RunReport{Left: id})
	}
	await(t, "it is the server's no more", func() bool { return len(showServer(t, c, "web").Disks) == 3 })
	if v, err := c.DiskShow(t.Context(), "web-data-2"); err != nil || v.Status != "available" || v.Server != nil {
		t.Errorf("%+v, %v", v, err)
	}
	await(t, "it is recorded", func() bool { return lastOf(t, d, "server.disk-left").Resource == id })
	r.do(nil)
	if _, err := c.ServerStop(t.Context(), "web", control.ServerStop{}, false); err != nil {
		t.Error(err)
	}
	rests(t, d, c, "web")
	if n := d.recorded(t, "server.disk-left", "ok"); n != before {
		t.Errorf("%d records of one disk", n-before+1)
	}
}

// A runner that goes while a disk is plugged takes it along.
func TestRunnerGoesWhileItPlugs(t *testing.T) {
	d, c := farm(t)
	must(t, d, control.RouteDiskCreate, `{"name":"more","size":1048576,"key":"b"}`)
	for range 4 {
		r := runs(t, d, c, "web")
		r.do(func(control.RunOrder) control.RunReport { _ = r.line.Close(); return control.RunReport{} })
		_, err := c.ServerAttach(t.Context(), "web", control.ServerDiskChange{Disk: "more"})
		code(t, err, refusal.Failed, "has ended meanwhile")
		if s := rests(t, d, c, "web"); len(s.Disks) != 4 {
			t.Errorf("%+v", s.Disks)
		}
		await(t, "the disk is free", func() bool { v, err := c.DiskShow(t.Context(), "more"); return err == nil && v.Status == "available" })
	}
}
