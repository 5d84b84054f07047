package server_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"nbdcrypt/pkg/pool/pooltest"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/server"
	"nbdcrypt/pkg/volume"
)

// world is what there should be: a plain word about each server, and how many members each group has.
type world struct {
	*rig
	rng     *rand.Rand
	disks   map[string][]string // of the servers that are nobody's members
	runs    map[string]*server.Run
	free    []string // bootable disks that are nobody's
	members map[string]int
	n       int
	done    map[string]int // by verb, how often it went well
}

// Random verbs, each cut off by a failing power now and then: after every one of them what there is, is what the model says, or where the verb was cut off either that or what was
// before it.
func TestRandomVerbs(t *testing.T) {
	total := map[string]int{}
	for seed := range uint64(6) {
		w := &world{rig: golden(t), rng: rand.New(rand.NewPCG(7, seed)), disks: map[string][]string{}, runs: map[string]*server.Run{}, members: map[string]int{}, done: total}
		w.small()
		for w.n = range 60 {
			w.step()
			if t.Failed() {
				t.Fatalf("seed %d, step %d", seed, w.n)
			}
		}
		for _, run := range w.runs {
			run.End("")
		}
		if found := w.check("", true); len(found) > 0 {
			t.Error(found)
		}
		w.empty()
	}
	for _, verb := range []string{"create", "delete", "detach", "attach", "start", "group", "scale", "end group"} {
		if total[verb] == 0 {
			t.Errorf("it never came to %s", verb)
		}
	}
}

func (w *world) step() {
	verbs := map[string]func() (verb func() error, then func()){
		"create": w.newServer, "delete": w.goneServer, "detach": w.freeDisk, "attach": w.giveDisk, "start": w.startStop, "group": w.newGroup, "scale": w.scaleGroup, "end group": w.goneGroup}
	names := []string{"create", "delete", "detach", "attach", "start", "group", "scale", "scale", "end group"}
	name := names[w.rng.IntN(len(names))]
	verb, then := verbs[name]()
	if verb == nil {
		return
	}
	cut := w.rng.IntN(4) == 0 && len(w.runs) == 0
	if cut {
		w.power.CutAfter(w.rng.IntN(40))
	}
	err := verb()
	off := w.power.Off()
	w.power.CutAfter(-1)
	switch {
	case !off && err != nil:
		w.t.Errorf("%s: %v", name, err)
	case off:
		if err != nil && !errors.Is(err, pooltest.ErrPower) && refusal.CodeOf(err) != refusal.Failed {
			w.t.Errorf("%s: %v", name, err)
		}
		w.again(w.n)
		before := w.is()
		if before != w.says() || err == nil {
			then()
		}
	default:
		w.done[name]++
		then()
	}
	if is, says := w.is(), w.says(); is != says {
		w.t.Errorf("after %s, cut off %v, %v:\n%s\nthe model says\n%s", name, off, err, is, says)
	}
	w.wholeWhileRunning()
}

// wholeWhileRunning is whole, where nothing runs.
func (w *world) wholeWhileRunning() {
	if len(w.runs) == 0 {
		w.whole()
	}
}

// is tells what there is, says what there should be.
func (w *world) is() string {
	var lines []string
	must(w.t, w.List(w.t.Context(), "default", func(v server.Server) error {
		if v.Group != nil {
			return nil
		}
		var disks []string
		for _, d := range v.Disks {
			disks = append(disks, d.Role+" "+d.Name)
		}
		lines = append(lines, fmt.Sprintf("%s %s: %s", v.Name, v.Status, strings.Join(disks, ", ")))
		return nil
	}))
	must(w.t, w.Groups(w.t.Context(), "default", func(g server.Group) error {
		lines = append(lines, fmt.Sprintf("group %s: %d %v", g.Name, len(g.Members), g.Warnings))
		return nil
	}))
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (w *world) says() string {
	var lines []string
	for name, disks := range w.disks {
		status := server.Stopped
		if w.runs[name] != nil {
			status = server.Starting
		}
		lines = append(lines, fmt.Sprintf("%s %s: %s", name, status, strings.Join(disks, ", ")))
	}
	for name, n := range w.members {
		lines = append(lines, fmt.Sprintf("group %s: %d []", name, n))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// some is one of the names, empty where there is none that will do.
func some[V any](w *world, of map[string]V, will func(string) bool) string {
	var names []string
	for name := range of {
		if will(name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return names[w.rng.IntN(len(names))]
}

func (w *world) stopped(name string) bool { return w.runs[name] == nil }

func (w *world) newServer() (func() error, func()) {
	name := fmt.Sprintf("s%d", w.n)
	spec := ofGolden(name)
	if w.rng.IntN(2) == 0 {
		spec = copied(name)
	}
	return func() error { _, err := w.Create(w.t.Context(), "create "+name, spec, volume.Work{}); return err }, func() {
		w.disks[name] = []string{"system " + name + "-system", "data " + name + "-data-1"}
		if spec.AsImage {
			w.disks[name] = append(w.disks[name], "data "+name+"-data-2")
		}
	}
}

func (w *world) goneServer() (func() error, func()) {
	name := some(w, w.disks, w.stopped)
	if name == "" {
		return nil, nil
	}
	keep := w.rng.IntN(2) == 0
	return func() error { return w.Delete(w.t.Context(), fmt.Sprint("delete ", w.n), "default", name, keep) }, func() {
		for _, d := range w.disks[name] {
			if role, disk, _ := strings.Cut(d, " "); keep && role == "system" {
				w.free = append(w.free, disk)
			}
		}
		delete(w.disks, name)
	}
}

func (w *world) freeDisk() (func() error, func()) {
	name := some(w, w.disks, func(n string) bool { return w.stopped(n) && len(w.disks[n]) > 0 })
	if name == "" {
		return nil, nil
	}
	disk := w.disks[name][0]
	role, ref, _ := strings.Cut(disk, " ")
	return func() error {
			_, err := w.DetachDisk(w.t.Context(), fmt.Sprint("detach ", w.n), "default", name, ref)
			return err
		}, func() {
			w.disks[name] = w.disks[name][1:]
			if role == "system" {
				w.free = append(w.free, ref)
			}
		}
}

func (w *world) giveDisk() (func() error, func()) {
	name := some(w, w.disks, w.stopped)
	if name == "" || len(w.free) == 0 {
		return nil, nil
	}
	disk := w.free[0]
	system := len(w.disks[name]) == 0 || !strings.HasPrefix(w.disks[name][0], "system")
	return func() error {
			_, err := w.AttachDisk(w.t.Context(), fmt.Sprint("attach ", w.n), "default", name, disk, system)
			return err
		}, func() {
			w.free = w.free[1:]
			if system {
				w.disks[name] = append([]string{"system " + disk}, w.disks[name]...)
			} else {
				w.disks[name] = append(w.disks[name], "data "+disk)
			}
		}
}

// startStop begins a run, or ends one.
func (w *world) startStop() (func() error, func()) {
	if name := some(w, w.runs, func(string) bool { return true }); name != "" {
		return func() error { return nil }, func() { w.runs[name].End(""); delete(w.runs, name) }
	}
	name := some(w, w.disks, func(n string) bool { return len(w.disks[n]) > 0 && strings.HasPrefix(w.disks[n][0], "system") })
	if name == "" {
		return nil, nil
	}
	var run *server.Run
	return func() (err error) { run, err = w.Begin(w.t.Context(), "default", name); return err }, func() {
		if run != nil {
			w.runs[name] = run
		}
	}
}

func (w *world) newGroup() (func() error, func()) {
	name, n := fmt.Sprintf("g%d", w.n), w.rng.IntN(3)
	return func() error {
		_, err := w.CreateGroup(w.t.Context(), "group "+name, server.GroupSpec{Project: "default", Name: name, Config: "c", Min: n, Max: 6}, nil)
		return err
	}, func() { w.members[name] = n }
}

func (w *world) scaleGroup() (func() error, func()) {
	name, n := some(w, w.members, func(string) bool { return true }), 2+w.rng.IntN(5)
	if name == "" {
		return nil, nil
	}
	return func() error {
		_, err := w.Scale(w.t.Context(), fmt.Sprint("scale ", w.n), "default", name, n, nil)
		return err
	}, func() { w.members[name] = n }
}

func (w *world) goneGroup() (func() error, func()) {
	name := some(w, w.members, func(string) bool { return true })
	if name == "" {
		return nil, nil
	}
	return func() error {
		_, err := w.DeleteGroup(w.t.Context(), fmt.Sprint("end ", w.n), "default", name, nil)
		return err
	}, func() { delete(w.members, name) }
}
