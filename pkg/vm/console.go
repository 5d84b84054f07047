package vm

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// kept is how much of a console is kept, in memory alone: in a file it would be plaintext.
	kept = 256 << 10
	// maxReaders bounds how many look at one console.
	maxReaders = 32
	// deafTime is how long a guest may hear nothing while somebody types more than fits into what lies between them.
	deafTime = 10 * time.Second

	consoleSocket = "console" // what was kept, then what comes; and back
	logSocket     = "log"     // what was kept
)

// console is a guest's console. Who looks at it too slowly is cut off, and never holds up the guest.
type console struct {
	listeners []*net.UnixListener

	mu      sync.Mutex
	news    sync.Cond
	text    [kept]byte // the last of total bytes, each at its number modulo kept
	total   int64
	guest   net.Conn // the last that was watched
	deaf    time.Duration
	readers map[*reader]bool
	over    bool
	busy    sync.WaitGroup // who watches
	showing sync.WaitGroup // who shows
}

// reader is who looks at a console.
type reader struct {
	conn net.Conn
	at   int64 // what it has seen of total
	till int64 // where it ends, -1 for with the guest
}

func openConsole(d *directory) (*console, error) {
	c := &console{readers: map[*reader]bool{}, deaf: deafTime}
	c.news.L = &c.mu
	for _, name := range []string{consoleSocket, logSocket} {
		l, err := d.listen(name)
		if err != nil {
			c.end(0)
			return nil, err
		}
		c.listeners = append(c.listeners, l)
		go c.serve(l, name == logSocket)
	}
	return c, nil
}

// watch reads what a guest says until it has ended.
func (c *console) watch(guest net.Conn) {
	c.mu.Lock()
	c.guest = guest
	c.mu.Unlock()
	c.busy.Go(func() {
		defer guest.Close()
		buffer := make([]byte, 16<<10)
		for {
			n, err := guest.Read(buffer)
			c.add(buffer[:n])
			if err != nil {
				return
			}
		}
	})
}

func (c *console) add(p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(p) > 0 {
		n := copy(c.text[c.total%kept:], p)
		c.total += int64(n)
		p = p[n:]
	}
	for r := range c.readers {
		if c.total-r.at > kept {
			_ = r.conn.Close()
		}
	}
	c.news.Broadcast()
}

func (c *console) serve(l *net.UnixListener, log bool) {
	for {
		conn, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // too many files are open: the one that waits is taken later
			time.Sleep(100 * time.Millisecond)
			continue
		}
		r, ok := c.enter(conn, log)
		if !ok {
			_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = conn.Write([]byte("nbdcrypt: too many look at this console\r\n"))
			_ = conn.Close()
			continue
		}
		go c.show(r)
		if !log {
			go c.hear(r)
		}
	}
}

func (c *console) enter(conn net.Conn, log bool) (*reader, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || len(c.readers) >= maxReaders {
		return nil, false
	}
	r := &reader{conn: conn, at: max(0, c.total-kept), till: -1}
	if log {
		r.till = c.total
	}
	c.readers[r] = true
	c.showing.Add(1)
	return r, true
}

// show brings a reader what it has not seen, until that is all.
func (c *console) show(r *reader) {
	defer c.showing.Done()
	defer c.leave(r)
	buffer := make([]byte, 16<<10)
	for {
		n := c.next(r, buffer)
		if n == 0 {
			return
		}
		if _, err := r.conn.Write(buffer[:n]); err != nil {
			return
		}
		c.mu.Lock()
		r.at += int64(n)
		c.mu.Unlock()
	}
}

func (c *console) leave(r *reader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.readers, r)
	_ = r.conn.Close()
}

// next waits for what a reader has not seen, and copies some of it; nothing means that this was all, or that the reader was cut off.
func (c *console) next(r *reader, to []byte) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	for r.at == c.total && !c.over && r.till < 0 && c.readers[r] {
		c.news.Wait()
	}
	till := c.total
	if r.till >= 0 {
		till = r.till
	}
	if !c.readers[r] || c.total-r.at > kept {
		return 0
	}
	at := r.at % kept
	return copy(to[:min(int64(len(to)), till-r.at)], c.text[at:])
}

// hear brings the guest what a reader types. Who closes the connection has left; while the guest hears nothing that can't be known, so that its place is taken then.
func (c *console) hear(r *reader) {
	buffer := make([]byte, 4<<10)
	for {
		n, err := r.conn.Read(buffer)
		c.mu.Lock()
		guest, deaf := c.guest, c.deaf
		c.mu.Unlock()
		if n > 0 && guest != nil {
			_ = guest.SetWriteDeadline(time.Now().Add(deaf))
			if _, late := guest.Write(buffer[:n]); errors.Is(late, os.ErrDeadlineExceeded) {
				err = late // a guest that has ended hears nothing, either
			}
		}
		if err != nil {
			c.leave(r)
			c.news.Broadcast()
			return
		}
	}
}

// end shows everybody the guest's last words, within a time. A nil console was never opened.
func (c *console) end(within time.Duration) {
	if c == nil {
		return
	}
	for _, l := range c.listeners {
		_ = l.Close()
	}
	until := make(chan struct{})
	defer time.AfterFunc(within, func() { close(until) }).Stop()
	wait(&c.busy, until)
	c.mu.Lock()
	c.over = true
	c.news.Broadcast()
	c.mu.Unlock()
	wait(&c.showing, until)
	c.mu.Lock()
	defer c.mu.Unlock()
	for r := range c.readers {
		_ = r.conn.Close()
	}
}

func wait(all *sync.WaitGroup, until <-chan struct{}) {
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	select {
	case <-done:
	case <-until:
	}
}
