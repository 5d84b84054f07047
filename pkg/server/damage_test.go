package server_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/server"
	"nbdcrypt/pkg/volume"
)

// put writes a record as nobody should.
func (r *rig) put(key string, value []byte) {
	r.t.Helper()
	must(r.t, r.catalog.Update(r.t.Context(), "damage "+key[:min(60, len(key))], func(t catalog.Txn) error {
		if value == nil {
			return t.Delete(key)
		}
		return t.Put(key, value)
	}))
}

// value is what stands under a name of the catalog, nil for nothing.
func (r *rig) value(key string) (b []byte) {
	r.t.Helper()
	must(r.t, r.catalog.View(r.t.Context(), func(c catalog.Reader) (err error) {
		if b, err = c.Get(key); errors.Is(err, catalog.ErrNotFound) {
			return nil
		}
		return err
	}))
	return b
}

// A record that can't be read is told of, and keeps nobody else from working.
func TestDamageIsToldAndKeepsNobodyElse(t *testing.T) {
	r := golden(t)
	ctx := t.Context()
	r.group("g", 1)
	r.create(server.Spec{Project: "default", Name: "bad", Image: "open", AsImage: true, Data: ofGolden("").Data})
	v, err := r.Get(ctx, "default", "bad")
	must(t, err)
	g, err := r.Group(ctx, "default", "g")
	must(t, err)
	c, err := r.Config(ctx, "default", "c")
	must(t, err)
	for _, key := range []string{"server/" + v.ID.String(), "scaling-group/" + g.ID.String(), "scaling-config/" + c.ID.String()} {
		r.put(key, []byte(`{"v":2}`))
	}
	r.open()
	if bad := r.Unreadable(); len(bad) != 3 || len(r.Finished()) != 0 {
		t.Errorf("%v, finished %v", bad, r.Finished())
	}
	_, err = r.Get(ctx, "default", "bad")
	wantCode(t, err, refusal.Damaged, "bad")
	_, err = r.Begin(ctx, "default", "bad")
	wantCode(t, err, refusal.Damaged)
	wantCode(t, r.Delete(ctx, "x", "default", "bad", false), refusal.Damaged)
	_, err = r.Group(ctx, "default", "g")
	wantCode(t, err, refusal.Damaged)
	_, err = r.Scale(ctx, "x", "default", "g", 2, nil)
	wantCode(t, err, refusal.Damaged)
	wantCode(t, r.Preflight(ctx, "default", "c"), refusal.Damaged)
	wantCode(t, r.volumes.Delete(ctx, "x", "default", "bad-system"), refusal.Damaged) // who knows what needs it
	statuses := map[string]server.Status{}
	must(t, r.List(ctx, "default", func(v server.Server) error { statuses[v.Name] = v.Status; return nil }))
	if statuses["bad"] != server.Damaged || statuses["web"] != server.Stopped || len(statuses) != 3 {
		t.Error(statuses)
	}
	must(t, r.Groups(ctx, "default", func(g server.Group) error { statuses[g.Name] = g.Status; return nil }))
	must(t, r.Configs(ctx, "default", func(c server.ScalingConfig) error { statuses[c.Name] = c.Status; return nil }))
	if statuses["g"] != server.Damaged || statuses["c"] != server.Damaged {
		t.Error(statuses)
	}
	if n, m, k, err := r.Count(ctx, "default"); n != 3 || m != 1 || k != 1 || err != nil {
		t.Error(n, m, k, err)
	}
	r.create(ofGolden("another"))
	run, err := r.Begin(ctx, "default", "another")
	must(t, err)
	run.End("")
	must(t, r.Delete(ctx, "y", "default", "web", false))
}

// A server whose disk can't be cleaned up is told of, and keeps the others from nothing.
func TestAStartThatCanNotFinish(t *testing.T) {
	r := golden(t)
	ctx := t.Context()
	r.create(ofGolden("web"))
	v := r.create(ofGolden("half"))
	key := "server/" + v.ID.String()
	var rec map[string]any
	must(t, r.catalog.View(ctx, func(c catalog.Reader) error {
		b, err := c.Get(key)
		must(t, err)
		return json.Unmarshal(b, &rec)
	}))
	rec["status"] = "deleting"
	b, err := json.Marshal(rec)
	must(t, err)
	r.put(key, b)
	disk := r.disk("half-data-2")
	layer := "layer/" + disk.Layers[0].ID
	var was []byte
	must(t, r.catalog.View(ctx, func(c catalog.Reader) (err error) { was, err = c.Get(layer); return err }))
	r.put(layer, []byte("{}"))
	r.open()
	if bad := r.Unreadable(); len(bad) != 1 || !strings.Contains(bad[0].Error(), "half") {
		t.Error(bad)
	}
	v, err = r.Get(ctx, "default", "half")
	if err != nil || v.Status != server.Error || len(v.Warnings) == 0 {
		t.Errorf("%+v, %v", v, err)
	}
	_, err = r.Begin(ctx, "default", "half")
	wantCode(t, err, refusal.Busy, "half")
	r.create(ofGolden("another"))
	r.put(layer, was)
	r.open()
	if done := r.Finished(); len(done) != 1 || !strings.Contains(done[0], "half") || len(r.Unreadable()) != 0 {
		t.Error(done, r.Unreadable())
	}
	r.whole()
	r.empty()
}

// A start says which scalings it ended.
func TestAStartSaysWhatItEnded(t *testing.T) {
	r := golden(t)
	r.smallGroup(1)
	r.power.CutAfter(30)
	_, err := r.Scale(t.Context(), "up", "default", "g", 4, nil)
	if err == nil || !r.power.Off() {
		t.Fatal("it was not cut off")
	}
	// As long as the daemon lives it knows: members of a scaling that was cut off can't be started, and the next one ends it.
	r.power.Resume()
	if g, err := r.Group(t.Context(), "default", "g"); err != nil || len(g.Warnings) == 0 || len(g.Members) < 2 {
		t.Errorf("%+v, %v", g, err)
	}
	_, err = r.Begin(t.Context(), "default", "g-2")
	wantCode(t, err, refusal.Busy)
	if leaving, err := r.Leaving(t.Context(), "default", "g", 4); err != nil || len(leaving) == 0 {
		t.Errorf("%+v, %v", leaving, err)
	}
	r.start()
	if done := r.Finished(); !slices.ContainsFunc(done, func(s string) bool { return strings.Contains(s, "default/g:") }) {
		t.Error(done)
	}
	r.whole()
	if names := r.serverNames(); !slices.Equal(names, []string{"g-1"}) {
		t.Error(names)
	}
	r.empty()
}

// Many verbs at once: each is done or refused as busy, and what is there is whole.
func TestManyAtOnce(t *testing.T) {
	r := golden(t)
	r.smallGroup(2)
	r.create(ofGolden("web"))
	var all sync.WaitGroup
	try := func(fn func(n int) error) {
		all.Go(func() {
			for n := range 6 {
				if err := fn(n); err != nil && refusal.CodeOf(err) != refusal.Busy && refusal.CodeOf(err) != refusal.NotFound {
					t.Error(err)
				}
			}
		})
	}
	ctx := t.Context()
	for i := range 2 {
		try(func(n int) error {
			_, err := r.Scale(ctx, fmt.Sprint("scale ", i, n), "default", "g", (n+i)%4, nil)
			return err
		})
		try(func(n int) error {
			_, err := r.Create(ctx, fmt.Sprint("create ", i, n), ofGolden(fmt.Sprint("s", n)), volume.Work{})
			return err
		})
		try(func(n int) error {
			return r.Delete(ctx, fmt.Sprint("delete ", i, n), "default", fmt.Sprint("s", n), false)
		})
		try(func(n int) error {
			run, err := r.Begin(ctx, "default", "web")
			if err == nil {
				run.Running(server.RunInfo{})
				run.End("")
			}
			return err
		})
		try(func(n int) error {
			run, err := r.Begin(ctx, "default", fmt.Sprint("g-", n))
			if err == nil {
				run.End("")
			}
			return err
		})
		try(func(n int) error {
			_, err := r.DetachDisk(ctx, fmt.Sprint("detach ", i, n), "default", "web", "web-data-1")
			return err
		})
		try(func(n int) error {
			_, err := r.AttachDisk(ctx, fmt.Sprint("attach ", i, n), "default", "web", "web-data-1", false)
			return err
		})
		try(func(n int) error {
			_, err := r.CreateConfig(ctx, fmt.Sprint("config ", i, n), server.ConfigSpec{Project: "default", Name: "k", Server: "web"})
			return err
		})
		try(func(n int) error { _, err := r.DeleteConfig(ctx, fmt.Sprint("end ", i, n), "default", "k"); return err })
		try(func(n int) error {
			err := r.List(ctx, "default", func(server.Server) error { return nil })
			if err == nil {
				err = r.Groups(ctx, "default", func(server.Group) error { return nil })
			}
			return err
		})
	}
	all.Wait()
	r.whole()
	r.empty()
}
