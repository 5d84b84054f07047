package secret

import (
	"errors"
	"fmt"
	"sync"
)

// A mapper returns size bytes of memory for keys, between guard pages and zeroed.
type mapper struct {
	kind string
	mmap func(size int) ([]byte, error)
}

// An arena hands out cells of as many chunks as it needs. Chunks are kept: a borrowed slice that outlives its key then reads
// zeros or another key of this process, not whatever the Go heap maps at the address next.
type arena struct {
	mu     sync.Mutex
	mapper []mapper // by preference; the first one that works makes all chunks
	chunks []*chunk
	cells  int
	keys   int
	once   sync.Once
}

func newArena(m ...mapper) *arena { return &arena{mapper: m} }

func (a *arena) key(n int) (*Key, error) {
	if n < 1 || n > chunkSize {
		return nil, fmt.Errorf("secret: a key of %d bytes: it must have 1 to %d", n, chunkSize)
	}
	l, err := a.lease(n)
	if err != nil {
		return nil, fmt.Errorf("secret: memory for a key of %d bytes: %w", n, err)
	}
	k := new(Key)
	k.lease.Store(l)
	return k, nil
}

func (a *arena) lease(n int) (*lease, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	cells := cellsFor(n)
	c, first := a.find(cells)
	if c == nil {
		var err error
		if c, err = a.grow(); err != nil {
			return nil, err
		}
		first = 0
	}
	c.mark(first, cells, true)
	a.cells += cells
	a.keys++
	at := first * cellSize
	return &lease{arena: a, chunk: c, first: first, mem: c.mem[at : at+n : at+n]}, nil
}

// find returns the first free run of cells.
func (a *arena) find(cells int) (*chunk, int) {
	for _, c := range a.chunks {
		if first, ok := c.find(cells); ok {
			return c, first
		}
	}
	return nil, 0
}

// grow maps one more chunk. A mapper that the kernel does not have is dropped; one that met the limit is not, since the next
// would meet the same limit, nor one that has worked before: keys never go to lesser memory than Stats has told.
func (a *arena) grow() (*chunk, error) {
	a.once.Do(raiseLimit)
	for {
		mem, err := a.mapper[0].mmap(chunkSize)
		if err == nil {
			c := &chunk{mem: mem}
			a.chunks = append(a.chunks, c)
			return c, nil
		}
		if errors.Is(err, errLimit) {
			return nil, fmt.Errorf("%w: %s (%w); detach disks or raise RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK= of systemd)",
				ErrFull, a.level(), err)
		}
		if len(a.mapper) == 1 || len(a.chunks) > 0 {
			return nil, err
		}
		a.mapper = a.mapper[1:]
	}
}

func (a *arena) level() string {
	limit := "no limit"
	if n, limited := lockLimit(); limited {
		limit = fmt.Sprintf("a limit of %d", n)
	}
	return fmt.Sprintf("%d bytes in keys, %d locked, %s", a.cells*cellSize, len(a.chunks)*chunkSize, limit)
}

// release wipes first: the cells are another key's as soon as they are free.
func (a *arena) release(l *lease) {
	clear(l.mem)
	a.mu.Lock()
	defer a.mu.Unlock()
	cells := cellsFor(len(l.mem))
	l.chunk.mark(l.first, cells, false)
	a.cells -= cells
	a.keys--
}

func (a *arena) stats() Usage {
	a.mu.Lock()
	defer a.mu.Unlock()
	limit, _ := lockLimit()
	u := Usage{Used: int64(a.cells) * cellSize, Limit: limit, Keys: a.keys}
	if len(a.chunks) > 0 {
		u.Kind = a.mapper[0].kind
	}
	return u
}
