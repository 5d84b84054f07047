package iobench

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

func TestFootprint(t *testing.T) {
	got := newFootprint(held{resident: 50 << 20, inGo: 20 << 20}, held{resident: 50<<20 + 1000*65535, inGo: 20<<20 + 1000*40000}, 1000, 65536)
	if got != (Footprint{1000, 65535, 40000, 65536, true}) {
		t.Errorf("%+v", got)
	}
	if got := newFootprint(held{}, held{resident: 1000 * 65536}, 1000, 65536); got.Met {
		t.Errorf("%+v is within the limit", got)
	}
}

func TestSumOfMetrics(t *testing.T) {
	const text = "# HELP b x\n# TYPE b gauge\na{x=\"b 7\"} 9\nb 1.5e+03\nbb 4\nc 7\n"
	if got, err := sumOf(strings.NewReader(text), "b", "c"); err != nil || got != 1507 {
		t.Error(got, err)
	}
	for _, name := range []string{"a", "d", "B"} {
		if got, err := sumOf(strings.NewReader(text), "b", name); err == nil {
			t.Errorf("%s: %d", name, got)
		}
	}
	if _, err := sumOf(strings.NewReader("b x\n"), "b"); err == nil {
		t.Error("x is a number")
	}
}

// TestDelays: the limit is that of the same run's syncs.
func TestDelays(t *testing.T) {
	syncs, attach, detach := callTimes{syncs: []float64{0.001, 0.002, 0.009}, attaches: []float64{0.0069, 1, 0.001}, detaches: []float64{0.007, 0.007, 0.001}}.delays()
	if syncs != (Delay{Median: 0.002, Min: 0.001, Max: 0.009, Met: true}) {
		t.Errorf("%+v", syncs)
	}
	if attach != (Delay{Median: 0.0069, Min: 0.001, Max: 1, Limit: 0.007, Met: true}) {
		t.Errorf("%+v", attach)
	}
	if detach.Met || detach.Median != 0.007 {
		t.Errorf("%+v", detach)
	}
}

// TestSyncTwice: it grows the file, so that there is something to sync each time.
func TestSyncTwice(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := syncTwice(file); err != nil {
		t.Fatal(err)
	}
	if info, err := file.Stat(); err != nil || info.Size() != 1024 {
		t.Error(info, err)
	}
}

// TestEach: every number has its turn once, and the first failure ends it.
func TestEach(t *testing.T) {
	var sum atomic.Int64
	steps := 0
	c := &crowd{total: 100, o: ScaleOptions{Progress: func(done, total int) { steps = done }}}
	if err := c.each(t.Context(), 100, func(_ context.Context, i int) error { sum.Add(int64(i)); return nil }); err != nil || sum.Load() != 4950 || steps != 100 {
		t.Error(err, sum.Load(), steps)
	}
	bad := errors.New("bad")
	if err := c.each(t.Context(), 100, func(_ context.Context, i int) error {
		if i == 7 {
			return bad
		}
		return nil
	}); !errors.Is(err, bad) {
		t.Error(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := c.each(ctx, 100, func(context.Context, int) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
