package load

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/vmtest/recorder"
)

var plan = Plan{Seed: 3, Workers: 3, Sectors: 512, Stride: 1 << 20}

// serve exports a recording disk.
func serve(t *testing.T) (*recorder.Disk, string) {
	t.Helper()
	d, err := recorder.New(t.TempDir(), 4<<20)
	if err != nil {
		t.Fatal(err)
	}
	at, end, err := d.Serve(filepath.Join(t.TempDir(), "s"), func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := end(); err != nil {
			t.Error(err)
		}
		d.Close()
	})
	return d, at.Pool
}

// moments remembers what had been promised at which point.
type moments struct {
	disk *recorder.Disk
	mu   sync.Mutex
	acks Acks
	all  []moment
}

type moment struct {
	at   recorder.Point
	acks Acks
}

func (m *moments) Write(line []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.acks.Take(string(line))
	m.all = append(m.all, moment{m.disk.Now(), m.acks.Clone()})
	return len(line), nil
}

func verify(t *testing.T, name string, a Acks) Result {
	t.Helper()
	r, err := Verify(plan, name, a)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// On an honest disk every promise holds after any cut, and images differ as much as they can.
func TestEveryPromiseHolds(t *testing.T) {
	d, uri := serve(t)
	m := &moments{disk: d}
	if err := Run(plan, uri, 200, m); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var promised, newer int64
	for i, now := range m.all {
		if i%8 != 0 {
			continue
		}
		if _, err := d.Image(f, now.at, recorder.Keep(i/8%4), uint64(i)); err != nil {
			t.Fatal(err)
		}
		r := verify(t, f.Name(), now.acks)
		if r.Lost+r.Garbage != 0 || r.Promised == 0 {
			t.Fatalf("cut at %d: %+v", now.at, r)
		}
		promised, newer = promised+r.Promised, newer+r.Newer
	}
	if newer == 0 || promised < 1<<20 {
		t.Errorf("of %d bytes %d were newer: the images show nothing", promised, newer)
	}
}

// A disk that answers flushes and forgets them is caught.
func TestALiarIsCaught(t *testing.T) {
	d, uri := serve(t)
	m := &moments{disk: d}
	if err := Run(plan, uri, 100, m); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, honest := range []int{0, len(m.all) / 2, len(m.all) * 3 / 4} {
		if _, err := d.Lie(f, m.all[honest].at, d.Now()); err != nil {
			t.Fatal(err)
		}
		if r := verify(t, f.Name(), m.acks); r.Lost == 0 || r.First == "" {
			t.Errorf("honest for %d acknowledgements of %d: %+v", honest, len(m.all), r)
		}
	}
}

// Each kind of loss is told from what is allowed.
func TestLossIsSeen(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	m := &moments{disk: &recorder.Disk{}}
	if err := Run(plan, name, 300, m); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, name, m.acks); r.Lost+r.Garbage != 0 {
		t.Fatalf("untouched: %+v", r)
	}
	floor := plan.floor(1, m.acks)
	at := 0 // a sector that was written more than once
	for floor[at] < 100 {
		at++
	}
	older := uint64(1)
	for c := plan.change(1, older); c.zeros() || !c.covers(at); c = plan.change(1, older) {
		older++
	}
	good := plan.content(1, floor[at], at, 1)
	for what, data := range map[string][]byte{
		"zeros":           make([]byte, Sector),
		"an older change": plan.content(1, older, at, 1),
		"another's place": plan.content(1, floor[at], at+1, 1),
		"another's part":  plan.content(2, floor[at], at, 1),
		"noise":           bytes.Repeat([]byte{7}, Sector),
		"half of it":      append(good[:Sector/2:Sector/2], make([]byte, Sector/2)...),
	} {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(data, plan.at(1, at)); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if r := verify(t, name, m.acks); r.Lost != Sector {
			t.Errorf("%s (change %d of %d): %+v", what, older, floor[at], r)
		}
	}
	if err := os.Truncate(name, plan.at(1, at)); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, name, m.acks); r.Lost <= Sector || r.Garbage == 0 {
		t.Errorf("cut off: %+v", r)
	}
}

func TestAcks(t *testing.T) {
	var a Acks
	for _, line := range []string{Line(1, 7, false), Line(1, 9, true), Line(2, 3, true), "ready", "flushed x"} {
		a.Take(line)
	}
	before := a.Clone()
	a.Take(Line(1, 12, false))
	if got, _ := json.Marshal([]Acks{before, a}); string(got) != `[{"flushed":{"1":7},"alone":{"1":[9],"2":[3]}},{"flushed":{"1":12},"alone":{"2":[3]}}]` {
		t.Errorf("%s", got)
	}
}

func TestCommand(t *testing.T) {
	_, uri := serve(t)
	var out bytes.Buffer
	args := []string{"-seed=9", "-workers=2", "-sectors=256"}
	if err := Command(append(args, "-changes=60", uri), &out); err != nil {
		t.Fatal(err)
	}
	var a Acks
	for line := range strings.Lines(out.String()) {
		if !a.Take(line) {
			t.Errorf("%q", line)
		}
	}
	acks, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if err := Command(append(args, "-verify", string(acks), uri), &out); err != nil {
		t.Fatal(err)
	}
	var r Result
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || r.Promised == 0 || r.Lost != 0 {
		t.Errorf("%s: %v", out.Bytes(), err)
	}
	if Command([]string{uri, uri}, &out) == nil || Command([]string{"-sectors=3", uri}, &out) == nil || Command([]string{"-verify=x", uri}, &out) == nil {
		t.Error("a wrong command line was taken")
	}
}
