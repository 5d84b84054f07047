package nbd

import (
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// window is how much may wait for the socket before the loop stops making more: what is sent soon is still in the
	// second-level cache.
	window = 1 << 20
	// patience is how long it stops where nothing leaves. The client may be one that sends much before it reads: then its
	// requests are read on, within the connection's budget.
	patience = 20 * time.Millisecond
)

// sender sends a connection's parcels in order. Whoever finds nobody sending sends as much as the socket takes at once;
// what is left is for the loop's next try, or for a goroutine that waits for the client and ends when all is gone.
type sender struct {
	conn   *conn
	export *Export
	budget *budget
	raw    syscall.RawConn // nil where the connection is no socket

	mu          sync.Mutex
	first, last *parcel
	busy        bool // somebody sends
	idle        sync.Cond
	broken      bool

	queued  atomic.Int64 // bytes
	left    atomic.Int64 // bytes that were queued and are gone, ever
	waiting atomic.Bool
	room    chan struct{}
	timer   *time.Timer
	stalled int64 // left, when patience ended

	// What sendRaw is told and tells. Only who is busy touches it. Both functions are made once: nothing is allocated
	// for a send.
	sendRaw    func(fd uintptr) bool
	pumpQueue  func()
	rest       []byte
	more, wait bool
	sent       int
	err        error
}

func newSender(c *conn, e *Export, b *budget) *sender {
	s := &sender{conn: c, export: e, budget: b, room: make(chan struct{}, 1), stalled: -1}
	s.idle.L = &s.mu
	s.sendRaw, s.pumpQueue = s.sendSocket, s.pump
	if sc, ok := c.nc.(syscall.Conn); ok {
		s.raw, _ = sc.SyscallConn()
	}
	return s
}

// submit queues a parcel and the ones linked to it, and sees to it that it is sent.
func (s *sender) submit(p *parcel) {
	s.mu.Lock()
	s.enqueue(p)
	if s.begin() && (s.raw == nil || !s.drain(false)) {
		go s.pumpQueue()
	}
}

// offer is submit for the loop while it has more to do: what the socket does not take stays in the queue, and is offered
// again with the next parcel. Before the loop waits for anything it pushes. Over TLS, which costs more than all the rest,
// another goroutine sends from the start.
func (s *sender) offer(p *parcel) {
	if s.raw == nil {
		s.submit(p)
		return
	}
	s.mu.Lock()
	s.enqueue(p)
	if s.begin() && !s.drain(false) {
		s.mu.Lock()
		s.busy = false
		s.mu.Unlock()
	}
}

// push has the queue sent while the loop waits.
func (s *sender) push() {
	s.mu.Lock()
	if s.begin() {
		go s.pumpQueue()
	}
}

// begin tells whether there is something to send and the caller is now the one who does. mu is held, and given up.
func (s *sender) begin() bool {
	defer s.mu.Unlock()
	if s.busy || s.first == nil {
		return false
	}
	s.busy = true
	return true
}

func (s *sender) enqueue(p *parcel) {
	if s.last == nil {
		s.first = p
	} else {
		s.last.next = p
	}
	for ; p != nil; p = p.next {
		s.queued.Add(int64(len(p.out)))
		s.last = p
	}
}

// pump sends until nothing is left, waiting for the client.
func (s *sender) pump() { s.drain(true) }

// drain sends the queue. False tells that the socket takes no more now; the caller is still the one who sends then.
func (s *sender) drain(wait bool) bool {
	for p := s.head(nil); p != nil; {
		if !s.broken {
			if !s.send(p, wait) {
				return false
			}
		}
		p = s.head(p)
	}
	return true
}

// head takes done, which is sent, out of the queue and returns the next parcel. With nil nobody sends any more.
func (s *sender) head(done *parcel) *parcel {
	s.mu.Lock()
	if done != nil {
		s.first = done.next
		if s.first == nil {
			s.last = nil
		}
	}
	p := s.first
	if p == nil && done == nil {
		s.busy = false
		s.idle.Broadcast()
	}
	s.more = p != nil && p.next != nil
	s.mu.Unlock()
	if done == nil {
		return p
	}
	s.release(done)
	if p == nil {
		return s.head(nil) // what came while done was released
	}
	return p
}

// send sends one parcel; false tells that the socket is full. Half a reply can't be taken back, so a failure ends the
// connection, which wakes its reader; what is queued is only let go from then on.
func (s *sender) send(p *parcel, wait bool) bool {
	for len(p.out) > 0 {
		n, err := s.write(p.out, wait)
		p.out = p.out[n:]
		s.count(n)
		if err == syscall.EAGAIN {
			return false
		}
		if err != nil {
			s.broken = true
			go s.conn.cut() // closing waits for the reader of the socket, who may be who sends
			return true
		}
	}
	return true
}

func (s *sender) write(b []byte, wait bool) (int, error) {
	s.conn.beforeWrite()
	if s.raw == nil {
		return s.conn.nc.Write(b)
	}
	s.rest, s.wait, s.sent, s.err = b, wait, 0, nil
	err := s.raw.Write(s.sendRaw)
	s.rest = nil
	if err != nil {
		return 0, err
	}
	return s.sent, s.err
}

func (s *sender) sendSocket(fd uintptr) bool {
	flags := syscall.MSG_DONTWAIT | syscall.MSG_NOSIGNAL
	if s.more {
		flags |= syscall.MSG_MORE
	}
	for {
		n, err := syscall.SendmsgN(int(fd), s.rest, nil, nil, flags)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN && s.wait:
			return false
		case err != nil:
			n = 0
		}
		s.sent, s.err = n, err
		return true
	}
}

// count tells the loop, where it waits, that there is room.
func (s *sender) count(n int) {
	s.left.Add(int64(n))
	if s.queued.Add(int64(-n)) <= window/2 && s.waiting.Load() && s.waiting.Swap(false) {
		select {
		case s.room <- struct{}{}:
		default:
		}
	}
}

// release gives back what a parcel that is sent, or given up, has held.
func (s *sender) release(p *parcel) {
	if len(p.out) > 0 {
		s.count(len(p.out))
	}
	if p.count > 0 {
		now := clock()
		for _, a := range p.accounts[:p.count] {
			s.export.counters.end(a.command, a.bytes, a.failed, now-a.began)
		}
	}
	s.export.memory.put(p.memory)
	s.budget.give(p.charge)
	p.next, p.out, p.memory, p.charge, p.count = nil, nil, nil, 0, 0
	parcels.Put(p)
}

// pace holds the loop up while the socket has more to do than it should. The loop alone calls it.
func (s *sender) pace() {
	if s.queued.Load() > window {
		s.push()
	}
	for s.queued.Load() > window && s.left.Load() != s.stalled {
		before := s.left.Load()
		s.waiting.Store(true)
		if s.queued.Load() <= window {
			return
		}
		if s.timer == nil {
			s.timer = time.NewTimer(patience)
		} else {
			s.timer.Reset(patience)
		}
		select {
		case <-s.room:
		case <-s.timer.C:
			if s.left.Load() == before {
				s.stalled = before
			}
		}
	}
}

// finish waits until everything is sent or given up.
func (s *sender) finish() {
	s.push()
	s.mu.Lock()
	for s.busy || s.first != nil {
		s.idle.Wait()
	}
	s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
}
