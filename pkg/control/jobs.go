package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/pkg/refusal"
)

// maxRunning is how many jobs may run at a time: each reads as fast as it can.
const maxRunning = 16

// newsGap is how often a job's progress is told at most: those who wait need no more, and a job may count quickly.
const newsGap = 200 * time.Millisecond

// Work is what a job does. It calls progress as it gets on, and ends soon after ctx does, unless it must not stop
// halfway. What it returns is the answer of the call that started it.
type Work func(ctx context.Context, progress func(done, total int64)) (any, error)

// Jobs are the long pieces of work of one daemon. It remembers a bounded number of those that ended.
type Jobs struct {
	keep    int
	mu      sync.Mutex
	jobs    []*job // oldest first
	closed  bool
	running sync.WaitGroup
}

type job struct {
	Job
	awaits bool // what others do
	cancel context.CancelFunc
	news   chan struct{} // closed and replaced when there is news
	told   time.Time
}

// NewJobs returns an empty registry that remembers keep jobs after their end.
func NewJobs(keep int) *Jobs { return &Jobs{keep: keep} }

// Start runs work in the background. About says what it is: Verb, Resource, Project, Unit, Request and By. A call that is
// repeated (same Request, By and Verb) gets the job that it started before.
func (j *Jobs) Start(about Job, work Work) (Job, error) { return j.start(about, work, false) }

// Await is Start for work that only waits for what is done anyhow: it does not count among the jobs that run.
func (j *Jobs) Await(about Job, work Work) (Job, error) { return j.start(about, work, true) }

func (j *Jobs) start(about Job, work Work, awaits bool) (Job, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return Job{}, refusal.New(refusal.Unreachable, "ask again once it runs", "the daemon is shutting down")
	}
	if old := j.find(func(o *job) bool {
		return about.Request != "" && o.Request == about.Request && o.By == about.By && o.Verb == about.Verb
	}); old != nil {
		return old.Job, nil
	}
	if !awaits && j.runningNow() >= maxRunning {
		return Job{}, refusal.New(refusal.Busy, "wait until one has ended", "%d jobs are running, and no more are allowed", maxRunning)
	}
	about.ID, about.State, about.Started, about.Revision = uuid.NewString(), JobRunning, time.Now(), 1
	ctx, cancel := context.WithCancel(context.Background())
	started := &job{Job: about, awaits: awaits, cancel: cancel, news: make(chan struct{})}
	j.jobs = append(j.jobs, started)
	j.running.Go(func() { j.run(ctx, started, work) })
	return started.Job, nil
}

func (j *Jobs) run(ctx context.Context, of *job, work Work) {
	defer of.cancel()
	result, err := work(ctx, func(done, total int64) { j.progress(of, done, total) })
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case err == nil:
		of.State, of.Result = JobDone, result
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		of.State = JobCancelled
	default:
		of.State, of.Error = JobFailed, ErrorOf(err)
	}
	of.tell()
	j.forget()
}

func (j *Jobs) progress(of *job, done, total int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	of.Done, of.Total = done, total
	if time.Since(of.told) >= newsGap {
		of.tell()
	}
}

// tell wakes those who wait for news.
func (o *job) tell() {
	o.Revision++
	o.told = time.Now()
	close(o.news)
	o.news = make(chan struct{})
}

// forget drops the oldest of the ended jobs until only keep are left.
func (j *Jobs) forget() {
	ended := 0
	for _, o := range j.jobs {
		if o.State != JobRunning {
			ended++
		}
	}
	kept := j.jobs[:0]
	for _, o := range j.jobs {
		if o.State != JobRunning && ended > j.keep {
			ended--
			continue
		}
		kept = append(kept, o)
	}
	clear(j.jobs[len(kept):])
	j.jobs = kept
}

func (j *Jobs) runningNow() (n int) {
	for _, o := range j.jobs {
		if o.State == JobRunning && !o.awaits {
			n++
		}
	}
	return n
}

func (j *Jobs) find(is func(*job) bool) *job {
	for _, o := range j.jobs {
		if is(o) {
			return o
		}
	}
	return nil
}

// List tells about every job that is remembered, oldest first.
func (j *Jobs) List() []Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	list := make([]Job, 0, len(j.jobs))
	for _, o := range j.jobs {
		list = append(list, o.Job)
	}
	return list
}

// Get tells about a job. While it runs and its revision is not past after, it first waits for news, until wait or ctx
// is over.
func (j *Jobs) Get(ctx context.Context, id string, after uint64, wait time.Duration) (Job, error) {
	seen, news, err := j.look(id)
	if err != nil || seen.State != JobRunning || seen.Revision > after || wait <= 0 {
		return seen, err
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-news:
	case <-timer.C:
	case <-ctx.Done():
	}
	// It may have ended and been forgotten since: what was seen is then all there is to tell.
	if now, _, err := j.look(id); err == nil {
		return now, nil
	}
	return seen, nil
}

func (j *Jobs) look(id string) (Job, <-chan struct{}, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	o := j.find(func(o *job) bool { return o.ID == id })
	if o == nil {
		return Job{}, nil, refusal.New(refusal.NotFound, "jobs are forgotten some time after their end, and when the daemon stops", "no job %s", id)
	}
	return o.Job, o.news, nil
}

// Cancel asks a job to stop. It returns at once; Get tells when the job has ended.
func (j *Jobs) Cancel(id string) (Job, error) {
	seen, _, err := j.look(id)
	if err != nil {
		return seen, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if o := j.find(func(o *job) bool { return o.ID == id }); o != nil {
		o.cancel()
	}
	return seen, nil
}

// Shutdown takes no more jobs, asks those that run to stop and waits for them until ctx ends; the error names those
// that still run then.
func (j *Jobs) Shutdown(ctx context.Context) error {
	j.mu.Lock()
	j.closed = true
	for _, o := range j.jobs {
		o.cancel()
	}
	j.mu.Unlock()
	ended := make(chan struct{})
	go func() { j.running.Wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	var still []string
	for _, o := range j.List() {
		if o.State == JobRunning {
			still = append(still, o.what())
		}
	}
	return fmt.Errorf("control: still running: %s: %w", strings.Join(still, ", "), ctx.Err())
}
