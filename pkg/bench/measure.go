package bench

import (
	"context"
	"math"
	"slices"
	"time"
)

// A task is work that can be repeated.
type task struct {
	size   int // bytes that one time handles
	run    func(n int)
	times  int       // that fill a slice
	speeds []float64 // of the slices, in bytes a second
}

// rowTask is the task of a row, with its share of the ceiling in each round.
type rowTask struct {
	task
	row    Row
	shares []float64
}

// widthTask is AES rounds on registers of one width.
type widthTask struct {
	task
	bits int
}

// session is one run of the benchmark.
type session struct {
	rows     []*rowTask
	widths   []*widthTask // the first is the ceiling
	rounds   int
	now      func() time.Time
	progress func(done, total int)
}

// measure gives every row a slice in each round, with the ceiling's slices between them.
func (s *session) measure(ctx context.Context) error {
	for _, w := range s.widths {
		s.fit(&w.task)
	}
	for _, r := range s.rows {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.fit(&r.task)
	}
	for round := range s.rounds {
		for _, w := range slices.Backward(s.widths) {
			s.slice(&w.task)
		}
		for i, r := range s.rows {
			if err := ctx.Err(); err != nil {
				return err
			}
			s.beside(r)
			s.progress(round*len(s.rows)+i+1, s.rounds*len(s.rows))
		}
	}
	return nil
}

// fit finds out how many times fill a slice, so that the clock is read twice a slice however short one time is. Of three tries the
// shortest counts: one that was interrupted would make all slices too short.
func (s *session) fit(t *task) {
	for n := 1; ; n *= 2 {
		if took := min(s.time(t, n), s.time(t, n), s.time(t, n)); took >= slice/4 {
			t.times = max(1, int(float64(n)*float64(slice)/float64(took)))
			return
		}
	}
}

// beside measures a row against the mean of the ceiling's slice before it and the one after it, which is also the one before the next.
func (s *session) beside(r *rowTask) {
	speed := s.slice(&r.task)
	if len(s.widths) == 0 {
		return
	}
	ceiling := &s.widths[0].task
	before := ceiling.speeds[len(ceiling.speeds)-1]
	r.shares = append(r.shares, speed/((before+s.slice(ceiling))/2))
}

// slice measures a task once. What is done before the clock starts brings its code and data back into the caches.
func (s *session) slice(t *task) float64 {
	t.run(t.times / 16)
	speed := float64(t.size) * float64(t.times) / s.time(t, t.times).Seconds()
	t.speeds = append(t.speeds, speed)
	return speed
}

func (s *session) time(t *task, n int) time.Duration {
	begun := s.now()
	t.run(n)
	return s.now().Sub(begun)
}

func (s *session) report() Report {
	var report Report
	for _, r := range s.rows {
		row := r.row
		row.BytesPerSecond = int64(Median(r.speeds))
		if len(r.shares) > 0 {
			share := math.Round(Median(r.shares)*1e4) / 1e4
			row.OfCeiling = &share
		}
		report.Rows = append(report.Rows, row)
	}
	for _, w := range s.widths {
		report.Ceilings = append(report.Ceilings, Ceiling{w.bits, int64(Median(w.speeds))})
	}
	return report
}

// Median is the middle one, and of two in the middle the mean; 0 of none.
func Median(of []float64) float64 {
	if len(of) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(of))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}
