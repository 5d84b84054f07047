package bench

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"testing"
	"time"
)

// machine is one whose time passes by what is done on it.
type machine struct {
	at    time.Time
	speed float64 // what it is just now, 1 being normal
}

func newMachine() *machine { return &machine{speed: 1} }

func (m *machine) now() time.Time { return m.at }

// task handles size bytes in so long at normal speed.
func (m *machine) task(size int, long time.Duration) task {
	return task{size: size, run: func(n int) { m.at = m.at.Add(time.Duration(float64(n) * float64(long) / m.speed)) }}
}

func (m *machine) session(rounds int) *session {
	return &session{rounds: rounds, now: m.now, progress: func(int, int) {}}
}

func near(a, b float64) bool { return math.Abs(a-b) <= 0.001*b }

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		of   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{5, 1}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 100, 0, 2}, 3}} {
		before := slices.Clone(c.of)
		if got := Median(c.of); got != c.want || !slices.Equal(c.of, before) {
			t.Errorf("median of %v is %v, want %v", before, got, c.want)
		}
	}
}

// TestShares: the machine has another frequency in each round, and a share of the ceiling is what it is.
func TestShares(t *testing.T) {
	m := newMachine()
	s := m.session(5)
	s.widths = []*widthTask{{bits: 512, task: m.task(800, 40*time.Nanosecond)}, {bits: 128, task: m.task(200, 40*time.Nanosecond)}}
	s.rows = []*rowTask{{row: Row{Impl: "fast"}, task: m.task(4096, 256*time.Nanosecond)}, {row: Row{Impl: "slow"}, task: m.task(1<<20, 10*time.Millisecond)}}
	var told []int
	s.progress = func(done, total int) {
		if told = append(told, done); total != 10 {
			t.Errorf("%d of %d", done, total)
		}
		m.speed = []float64{1, 0.5, 2, 0.25, 1}[done/2%5]
	}
	if err := s.measure(context.Background()); err != nil {
		t.Fatal(err)
	}
	if len(told) != 10 || !slices.IsSorted(told) || told[9] != 10 {
		t.Errorf("told %v", told)
	}
	report := s.report()
	for i, want := range []struct {
		speed, share float64
	}{{16e9, 0.8}, {104857600, 0.0052}} {
		if got := report.Rows[i]; !near(float64(got.BytesPerSecond), want.speed) || *got.OfCeiling != want.share {
			t.Errorf("%+v: %v of the ceiling, want %+v", got, *got.OfCeiling, want)
		}
	}
	if c := report.Ceilings; len(c) != 2 || c[0].Bits != 512 || !near(float64(c[0].BytesPerSecond), 20e9) || c[1].Bits != 128 || !near(float64(c[1].BytesPerSecond), 5e9) {
		t.Errorf("%+v", c)
	}
}

// TestNeighbours: a row is compared with the mean of the ceiling just before it and just after it.
func TestNeighbours(t *testing.T) {
	m := newMachine()
	s := m.session(1)
	s.widths = []*widthTask{{task: m.task(100, 100*time.Nanosecond)}}
	row := &rowTask{task: m.task(100, 100*time.Nanosecond)}
	s.rows = []*rowTask{row}
	s.fit(&s.widths[0].task)
	s.fit(&row.task)
	s.slice(&s.widths[0].task)
	run := row.run
	row.run = func(n int) { run(n); m.speed = 3 } // from the row's first call on
	s.beside(row)
	if want := 3.0 / 2; !near(row.shares[0], want) {
		t.Errorf("%v, want %v", row.shares, want)
	}
}

// TestFit: a slice is long against the clock whatever a call takes, and one that was interrupted while it was fitted too.
func TestFit(t *testing.T) {
	for _, long := range []time.Duration{20 * time.Nanosecond, time.Microsecond, slice - 1, 10 * slice} {
		m := newMachine()
		one, first := m.task(512, long), true
		run := one.run
		one.run = func(n int) {
			if run(n); first {
				m.at = m.at.Add(time.Second)
			}
			first = false
		}
		m.session(1).fit(&one)
		if want := max(1, int(slice/long)); one.times < want-want/100 || one.times > want+want/100 {
			t.Errorf("%v: %d times fill a slice, want %d", long, one.times, want)
		}
	}
}

// TestNoCeiling: without AES instructions rows have a speed and no share, and JSON says null.
func TestNoCeiling(t *testing.T) {
	m := newMachine()
	s := m.session(3)
	s.rows = []*rowTask{{row: Row{Impl: "generic", Op: encrypt, SectorSize: 512, RunBytes: 4096}, task: m.task(4096, 4096*time.Nanosecond)}}
	if err := s.measure(context.Background()); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(s.report().Rows)
	want := `[{"impl":"generic","op":"encrypt","sector_size":512,"run_bytes":4096,"bytes_per_second":1000000000,"of_ceiling":null}]`
	if err != nil || string(text) != want {
		t.Errorf("%s, %v, want %s", text, err, want)
	}
}

// TestStops: an interrupt is heard between two slices.
func TestStops(t *testing.T) {
	m := newMachine()
	s := m.session(1000)
	s.rows = []*rowTask{{task: m.task(512, time.Microsecond)}}
	ctx, stop := context.WithCancel(context.Background())
	s.progress = func(done, total int) { stop() }
	if err := s.measure(ctx); !errors.Is(err, context.Canceled) || len(s.rows[0].speeds) != 1 {
		t.Errorf("%v after %d slices", err, len(s.rows[0].speeds))
	}
}
