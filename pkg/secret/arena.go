package secret

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
	"unsafe"
)

// A mapper returns size bytes of memory for keys, between guard pages and zeroed.
type mapper struct {
	kind string
	mmap func(size int) ([]byte, error)
}

// An arena hands out cells of as many chunks as it needs. Chunks are kept: a borrowed slice that outlives its key then reads
// zeros or another key of this process, not whatever the Go heap maps at the address next. Keys that stay and memory to work in
// have chunks of their own, and the first is to work in.
type arena struct {
	mu     sync.Mutex
	mapper []mapper // by preference; the first one that works makes all chunks
	chunks []*chunk
	leases map[*lease]struct{}
	cells  int
	once   sync.Once
}

func newArena(m ...mapper) *arena { return &arena{mapper: m, leases: map[*lease]struct{}{}} }

func (a *arena) key(n int, why Purpose, toWork bool) (*Key, error) {
	if n < 1 || n > chunkSize {
		return nil, fmt.Errorf("secret: a key of %d bytes: it must have 1 to %d", n, chunkSize)
	}
	l, err := a.lease(n, why, toWork)
	if err != nil {
		return nil, fmt.Errorf("secret: memory for a key of %d bytes: %w", n, err)
	}
	k := new(Key)
	k.lease.Store(l)
	return k, nil
}

func (a *arena) lease(n int, why Purpose, toWork bool) (*lease, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.chunks) == 0 {
		if _, err := a.grow(true); err != nil {
			return nil, err
		}
	}
	cells := cellsFor(n)
	c, first := a.find(cells, toWork)
	if c == nil {
		var err error
		if c, err = a.grow(toWork); err != nil {
			return nil, err
		}
		first = 0
	}
	c.mark(first, cells, true)
	a.cells += cells
	at := first * cellSize
	l := &lease{arena: a, chunk: c, first: first, mem: c.mem[at : at+n : at+n], purpose: why, since: time.Now()}
	a.leases[l] = struct{}{}
	return l, nil
}

// find returns the first free run of cells.
func (a *arena) find(cells int, toWork bool) (*chunk, int) {
	for _, c := range a.chunks {
		if c.toWork != toWork {
			continue
		}
		if first, ok := c.find(cells); ok {
			return c, first
		}
	}
	return nil, 0
}

// grow maps one more chunk. A mapper that the kernel does not have is dropped; one that met the limit is not, since the next
// would meet the same limit, nor one that has worked before: keys never go to lesser memory than Stats has told.
func (a *arena) grow(toWork bool) (*chunk, error) {
	a.once.Do(raiseLimit)
	for {
		mem, err := a.mapper[0].mmap(chunkSize)
		if err == nil {
			c := &chunk{mem: mem, toWork: toWork}
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
	handOut(l)
	clear(l.mem)
	a.mu.Lock()
	defer a.mu.Unlock()
	cells := cellsFor(len(l.mem))
	l.chunk.mark(l.first, cells, false)
	a.cells -= cells
	delete(a.leases, l)
}

func (a *arena) snapshot() (Usage, []Held) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stats(), a.list()
}

// stats is called with the lock held.
func (a *arena) stats() Usage {
	limit, _ := lockLimit()
	u := Usage{Used: int64(a.cells) * cellSize, Locked: int64(len(a.chunks)) * chunkSize, Limit: limit, Keys: len(a.leases)}
	if len(a.chunks) > 0 {
		u.Kind = a.mapper[0].kind
	}
	return u
}

// list is called with the lock held.
func (a *arena) list() []Held {
	held := make([]Held, 0, len(a.leases))
	for l := range a.leases {
		held = append(held, Held{l.purpose, l.since, len(l.mem)})
	}
	slices.SortFunc(held, func(x, y Held) int {
		return cmp.Or(x.Since.Compare(y.Since), cmp.Compare(x.For, y.For), cmp.Compare(x.ID, y.ID))
	})
	return held
}

func (a *arena) spans() []Span {
	a.mu.Lock()
	defer a.mu.Unlock()
	spans := make([]Span, len(a.chunks))
	for i, c := range a.chunks {
		from := uintptr(unsafe.Pointer(&c.mem[0]))
		spans[i] = Span{from, from + chunkSize}
	}
	return spans
}

// unwiped looks under the lock, so that no cell is taken meanwhile.
func (a *arena) unwiped() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.chunks {
		n += c.unwiped()
	}
	return n
}

func (a *arena) restrict(kind string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.chunks) > 0 {
		return errors.New("secret: there are keys already")
	}
	for _, m := range a.mapper {
		if m.kind == kind {
			a.mapper = []mapper{m}
			return nil
		}
	}
	return fmt.Errorf("secret: no kind of memory is called %q", kind)
}
