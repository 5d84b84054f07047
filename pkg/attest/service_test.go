package attest

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"
)

func newTestService(t *testing.T) *Service {
	t.Helper()
	s, err := NewService()
	must(t, err)
	t.Cleanup(s.Close)
	return s
}

// TestRuleA13_DetachesShareASearch: all that comes while one search is under way is in the next.
func TestRuleA13_DetachesShareASearch(t *testing.T) {
	s := newTestService(t)
	leaked, clean := newKey(t, "leaked"), newKey(t, "clean")
	heap := make([]byte, 1000)
	copy(heap[100:], leaked.schedules.Bytes()[64:][:len(window{})])
	var mu sync.Mutex
	reports := map[*Pending]Report{}
	var pending []*Pending
	for i := range 40 {
		marks := []*Marks{clean.marks}
		if i%10 == 0 {
			marks = append(marks, leaked.marks)
		}
		var p *Pending
		mu.Lock()
		p = s.Search(marks, func(r Report, err error) {
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			reports[p] = r
		})
		mu.Unlock()
		pending = append(pending, p)
	}
	searches := map[*shared]bool{}
	for i, p := range pending {
		r, err := p.Wait(t.Context(), noProgress)
		must(t, err)
		mu.Lock()
		if want := map[bool]int{true: 1}[i%10 == 0]; r.Found != want || len(r.Hits) != want || reports[p].Found != want {
			t.Errorf("%d: %+v, its end was told %+v", i, r, reports[p])
		}
		mu.Unlock()
		searches[p.search] = true
	}
	if len(reports) != 40 || len(searches) > 2 {
		t.Errorf("%d reports of %d searches", len(reports), len(searches))
	}
	runtime.KeepAlive(heap)
}

// A search that nobody waits for leaves the processor to others; one that somebody waits for does not.
func TestSearchHurriesForWhoWaits(t *testing.T) {
	rests := 0
	s := &Service{rest: func() { rests++ }}
	tick := s.pace(new(shared))
	work := func() {
		for begun := time.Now(); time.Since(begun) < 10*busyTime; {
			tick(1, 2)
		}
	}
	if work(); rests == 0 || rests > 10 {
		t.Errorf("%d rests in the time for 9", rests)
	}
	rests = 0
	s.waiting.Add(1)
	if work(); rests != 0 {
		t.Errorf("%d rests while somebody waits", rests)
	}
}

func TestWaitTellsAndEnds(t *testing.T) {
	p := &Pending{service: new(Service), search: new(shared), ended: make(chan struct{})}
	p.search.done.Store(5)
	p.search.total.Store(10)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := p.Wait(ctx, func(done, total int64) {
		if done != 5 || total != 10 {
			t.Errorf("%d of %d", done, total)
		}
		cancel()
	})
	if !errors.Is(err, context.Canceled) || p.service.waiting.Load() != 0 {
		t.Errorf("%v, %d wait", err, p.service.waiting.Load())
	}
}

// Close ends a search, and drops it and what comes later without a word.
func TestCloseDropsSearches(t *testing.T) {
	s := newTestService(t)
	heard := func(Report, error) { t.Error("a search that was dropped has told something") }
	marks := []*Marks{newKey(t, "layer").marks}
	first := s.Search(marks, heard)
	s.Close()
	for _, p := range []*Pending{first, s.Search(marks, heard)} {
		if _, err := p.Wait(t.Context(), noProgress); !errors.Is(err, ErrStopped) {
			t.Error(err)
		}
	}
}
