package machine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"nbdcrypt/cmd/nbdcrypt/vmtest/wire"
)

// errGone is what a command ends with whose machine went off under it.
var errGone = errors.New("the machine is off")

// channel is the line to the guest's agent.
type channel struct {
	conn    net.Conn
	ready   chan wire.Answer
	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan wire.Answer // nil when the machine is off
}

// dial connects to a socket that QEMU makes as it starts.
func (m *Machine) dial(name string) (net.Conn, error) {
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("unix", m.dir+"/"+name)
		if err == nil || time.Now().After(end) {
			return conn, err
		}
		select {
		case <-m.ended:
			return nil, errGone
		default:
		}
	}
}

// dialAgent waits until the guest says that it is ready.
func (m *Machine) dialAgent() (*channel, error) {
	conn, err := m.dial("agent")
	if err != nil {
		return nil, err
	}
	c := &channel{conn: conn, ready: make(chan wire.Answer, 1), waiting: map[uint64]chan wire.Answer{}}
	c.waiting[0] = c.ready
	go c.read()
	select {
	case _, up := <-c.ready:
		if !up {
			return nil, errGone
		}
		return c, nil
	case <-time.After(patience):
		return nil, fmt.Errorf("the guest did not come up within %v", patience)
	}
}

// read hands answers to whoever waits for them, until the machine is off.
func (c *channel) read() {
	for from := json.NewDecoder(bufio.NewReaderSize(c.conn, 1<<20)); ; {
		var a wire.Answer
		if err := from.Decode(&a); err != nil {
			break
		}
		c.mu.Lock()
		to := c.waiting[a.ID]
		if a.End {
			delete(c.waiting, a.ID)
		}
		c.mu.Unlock()
		if to != nil {
			to <- a
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, to := range c.waiting {
		close(to)
	}
	c.waiting = nil
}

// send gives a request a number and sends it.
func (c *channel) send(r wire.Request) (uint64, chan wire.Answer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting == nil {
		return 0, nil, errGone
	}
	answers := make(chan wire.Answer, 64)
	if r.ID == 0 {
		c.last++
		r.ID = c.last
		c.waiting[r.ID] = answers
	}
	line, err := json.Marshal(r)
	if err == nil {
		_, err = c.conn.Write(append(line, '\n'))
	}
	return r.ID, answers, err
}

// ask sends a request, gives its output to said, and returns the last answer. Where ctx ends first, what the request runs is killed.
func (c *channel) ask(ctx context.Context, r wire.Request, said func([]byte)) (wire.Answer, error) {
	id, answers, err := c.send(r)
	if err != nil {
		return wire.Answer{}, err
	}
	over := ctx.Done()
	for {
		select {
		case a, on := <-answers:
			switch {
			case !on:
				return a, errGone
			case a.Error != "":
				return a, errors.New(a.Error)
			case a.End:
				return a, context.Cause(ctx)
			}
			said(a.Out)
		case <-over:
			over = nil
			if _, _, err := c.send(wire.Request{ID: id, Op: wire.Kill}); err != nil {
				return wire.Answer{}, err
			}
		}
	}
}
