package attest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// ErrStopped says that a search was not made or not ended, as the service was closed.
var ErrStopped = errors.New("attest: the search was dropped")

// While nobody waits for a search it works for busyTime, then rests for restTime: a quarter of a processor is enough for it.
const (
	busyTime = 5 * time.Millisecond
	restTime = 15 * time.Millisecond
)

// newsGap is how often who waits for a search is told how far it is.
const newsGap = 100 * time.Millisecond

// Service makes searches, one at a time, in the background. What is handed in while one is under way shares the next one.
type Service struct {
	ctx     context.Context
	cancel  context.CancelFunc
	waiting atomic.Int32 // for a search: then there is no rest
	rest    func()

	mu      sync.Mutex
	next    *shared // nil where nothing was handed in
	working bool
	workers sync.WaitGroup
}

// shared is one search of many keys.
type shared struct {
	done, total atomic.Int64 // bytes
	of          []*Pending
}

// Pending is what was handed in together, with its search.
type Pending struct {
	service *Service
	marks   []*Marks
	then    func(Report, error)
	search  *shared
	ended   chan struct{}
	report  Report // on these marks; it and err are there once ended is closed
	err     error
}

// NewService returns a service that works until it is closed. It takes the memory that it needs as long as the process lives.
func NewService() (*Service, error) {
	if _, err := thePrinter(); err != nil {
		return nil, err
	}
	s := &Service{rest: func() { time.Sleep(restTime) }}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Search hands in the marks of keys that are being wiped; then hears what a search found that began later. It is not called
// where the service is closed before.
func (s *Service) Search(marks []*Marks, then func(Report, error)) *Pending {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &Pending{service: s, marks: marks, then: then, ended: make(chan struct{})}
	if s.ctx.Err() != nil {
		p.err = ErrStopped
		close(p.ended)
		return p
	}
	if s.next == nil {
		s.next = new(shared)
	}
	p.search = s.next
	s.next.of = append(s.next.of, p)
	if !s.working {
		s.working = true
		s.workers.Go(s.work)
	}
	return p
}

// Close drops what was handed in: the memory goes with the process.
func (s *Service) Close() {
	s.mu.Lock()
	s.cancel()
	s.mu.Unlock()
	s.workers.Wait()
}

// work makes searches until nothing is handed in any more.
func (s *Service) work() {
	for {
		s.mu.Lock()
		search := s.next
		s.next, s.working = nil, search != nil
		s.mu.Unlock()
		if search == nil {
			return
		}
		s.make(search)
	}
}

func (s *Service) make(search *shared) {
	var marks []*Marks
	for _, p := range search.of {
		marks = append(marks, p.marks...)
	}
	report, err := Search(s.ctx, marks, s.pace(search))
	if s.ctx.Err() != nil {
		err = ErrStopped
	}
	var told sync.WaitGroup // at once: what each writes is synced together
	for _, p := range search.of {
		told.Go(func() { p.end(report.about(p.marks), err) })
	}
	told.Wait()
}

func (p *Pending) end(report Report, err error) {
	p.report, p.err = report, err
	if !errors.Is(err, ErrStopped) {
		p.then(report, err)
	}
	p.marks = nil
	close(p.ended)
}

// pace notes how far a search is, and has it rest now and then.
func (s *Service) pace(search *shared) func(done, total int64) {
	rested := time.Now()
	return func(done, total int64) {
		search.done.Store(done)
		search.total.Store(total)
		if s.waiting.Load() == 0 && time.Since(rested) > busyTime {
			s.rest()
			rested = time.Now()
		}
	}
}

// Wait waits for the search, which hurries as long as somebody does. progress is told of it in bytes; total is 0 while it
// waits for the search before it.
func (p *Pending) Wait(ctx context.Context, progress func(done, total int64)) (Report, error) {
	p.service.waiting.Add(1)
	defer p.service.waiting.Add(-1)
	news := time.NewTicker(newsGap)
	defer news.Stop()
	for {
		select {
		case <-p.ended:
			return p.report, p.err
		case <-ctx.Done():
			return Report{}, ctx.Err()
		case <-news.C:
			progress(p.search.done.Load(), p.search.total.Load())
		}
	}
}
