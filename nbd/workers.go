package nbd

import (
	"sync"
	"time"

	"nbdcrypt/nbd/internal/wire"
)

const (
	// maxWorkers is how many device calls of one connection may wait for storage at a time.
	maxWorkers = 16
	// maxBacklog is how many requests may wait for a worker before the loop waits, too.
	maxBacklog = 128
)

// job is a request that passed its checks, or a piece of one, with its payload where it has one.
type job struct {
	wire.Request
	next   *job
	whole  *whole // of which this is a piece, or nil
	data   []byte
	done   int // bytes of a READ that are in data already
	charge int // to the budget
	began  time.Duration
}

// workers run jobs, each in a goroutine that ends when there are no more: a connection that waits has none.
type workers struct {
	do func(*job)

	mu          sync.Mutex // guards what follows
	changed     sync.Cond
	first, last *job
	backlog     int
	running     int
	free        *job
	labourFunc  func() // made once: nothing is allocated to start a worker
}

func newWorkers(do func(*job)) *workers {
	w := &workers{do: do}
	w.changed.L = &w.mu
	w.labourFunc = w.labour
	return w
}

// get returns an empty job.
func (w *workers) get() *job {
	w.mu.Lock()
	defer w.mu.Unlock()
	j := w.free
	if j == nil {
		return new(job)
	}
	w.free = j.next
	*j = job{}
	return j
}

// put takes back a job that was not handed to a worker.
func (w *workers) put(j *job) {
	w.mu.Lock()
	defer w.mu.Unlock()
	*j = job{next: w.free}
	w.free = j
}

// full tells whether hand would wait.
func (w *workers) full() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.backlog >= maxBacklog
}

// hand gives a job to a worker. A new one starts only while there are fewer than there may be.
func (w *workers) hand(j *job) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.backlog >= maxBacklog {
		w.changed.Wait()
	}
	if w.last == nil {
		w.first = j
	} else {
		w.last.next = j
	}
	w.last = j
	w.backlog++
	if w.running < maxWorkers {
		w.running++
		go w.labourFunc()
	}
}

func (w *workers) labour() {
	for j := w.take(nil); j != nil; j = w.take(j) {
		w.do(j)
	}
}

// take returns the next job, or nil, with which the worker ends; done is the one before.
func (w *workers) take(done *job) *job {
	w.mu.Lock()
	defer w.mu.Unlock()
	if done != nil {
		*done = job{next: w.free}
		w.free = done
	}
	j := w.first
	if j == nil {
		w.running--
		w.changed.Broadcast()
		return nil
	}
	if w.first = j.next; w.first == nil {
		w.last = nil
	}
	j.next = nil
	if w.backlog == maxBacklog {
		w.changed.Broadcast()
	}
	w.backlog--
	return j
}

// finish waits until every job is done.
func (w *workers) finish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.running > 0 {
		w.changed.Wait()
	}
}
