package backup

import (
	"runtime"
	"sync"
)

// team computes on chunks side by side, on every processor, while somebody reads or writes on. It keeps the failure that stands first in the
// file: which of two was met first is chance.
type team struct {
	work chan func()
	free chan struct{} // one for each buffer that may be taken
	busy sync.WaitGroup
	ends sync.WaitGroup

	mu  sync.Mutex
	at  int64
	err error
}

// newTeam starts as many as there are processors, and two at least: one of them waits for storage now and then.
func newTeam() *team {
	n := max(2, runtime.GOMAXPROCS(0))
	t := &team{work: make(chan func()), free: make(chan struct{}, n+1)}
	for range n + 1 {
		t.free <- struct{}{}
	}
	for range n {
		t.ends.Go(func() {
			for do := range t.work {
				do()
			}
		})
	}
	return t
}

// chunks are buffers, shared by all. Whoever has put plaintext into one clears it.
var chunks = sync.Pool{New: func() any { return new([ChunkSize]byte) }}

// buffer is a chunk's; it comes back by run.
func (t *team) buffer() *[ChunkSize]byte {
	<-t.free
	return chunks.Get().(*[ChunkSize]byte)
}

// run has do done, which is about what stands at a place of the file, and takes the buffer back after it.
func (t *team) run(at int64, buf *[ChunkSize]byte, do func() error) {
	t.busy.Add(1)
	t.work <- func() {
		defer t.busy.Done()
		err := do()
		chunks.Put(buf)
		t.free <- struct{}{}
		if err == nil {
			return
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.err == nil || at < t.at {
			t.at, t.err = at, err
		}
	}
}

func (t *team) failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err != nil
}

// wait returns when all that was begun is done.
func (t *team) wait() error {
	t.busy.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

func (t *team) close() {
	t.busy.Wait()
	close(t.work)
	t.ends.Wait()
}
