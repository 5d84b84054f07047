// Package qmp speaks to a QEMU by its machine protocol: commands with deadlines, answers, events. It knows no command but the one that every session begins with.
package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	// maxLine bounds one message; QEMU's longest, its own schema, has a fifth of it.
	maxLine = 1 << 20
	// callTime is how long a command may take whose caller sets no deadline.
	callTime = 30 * time.Second
)

// Event is something that happened in QEMU or its guest.
type Event struct {
	Name string
	Data json.RawMessage
}

// Error is QEMU's refusal of a command.
type Error struct {
	Command, Class, Desc string
}

func (e *Error) Error() string { return "qmp: " + e.Command + ": " + e.Desc }

// Client is a session with one QEMU. It may be used from many goroutines.
type Client struct {
	conn net.Conn
	hear func(Event)
	gone chan struct{} // closed when the session is over
	err  error         // why; to be read after gone

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan message
}

// Open begins the session on a connection, which it closes where that fails. Events go to hear, one after the other; it must not wait for the Client.
func Open(ctx context.Context, conn net.Conn, hear func(Event)) (*Client, error) {
	c := &Client{conn: conn, hear: hear, gone: make(chan struct{}), waiting: map[uint64]chan message{}}
	greeted := make(chan struct{})
	go c.read(greeted)
	ctx, cancel := bounded(ctx)
	defer cancel()
	err := c.greeting(ctx, greeted)
	if err == nil {
		err = c.Do(ctx, "qmp_capabilities", nil, nil)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, has := ctx.Deadline(); has {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, callTime)
}

func (c *Client) greeting(ctx context.Context, greeted <-chan struct{}) error {
	select {
	case <-greeted:
		return nil
	case <-c.gone:
		return c.err
	case <-ctx.Done():
		return fmt.Errorf("qmp: waiting for QEMU's greeting: %w", ctx.Err())
	}
}

// Gone is closed when the session is over.
func (c *Client) Gone() <-chan struct{} { return c.gone }

// Close ends the session, and QEMU goes on.
func (c *Client) Close() error { return c.conn.Close() }

// Do gives QEMU a command and reads what it returns into out, which may be nil. A refusal is an *Error. A command that was given up may have been done.
func (c *Client) Do(ctx context.Context, command string, args, out any) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	id, answer := c.expect()
	defer c.forget(id)
	text, err := json.Marshal(request{command, args, id})
	if err != nil {
		return fmt.Errorf("qmp: %s: %w", command, err)
	}
	if err := c.send(ctx, append(text, '\n')); err != nil {
		return fmt.Errorf("qmp: %s: %w", command, err)
	}
	m, err := c.await(ctx, answer)
	if err != nil {
		return fmt.Errorf("qmp: %s: %w", command, err)
	}
	return m.result(command, out)
}

// await waits for what QEMU answers. What it said before it was gone, as to quit, is an answer.
func (c *Client) await(ctx context.Context, answer <-chan message) (message, error) {
	select {
	case m := <-answer:
		return m, nil
	case <-c.gone:
		select {
		case m := <-answer:
			return m, nil
		default:
			return message{}, c.err
		}
	case <-ctx.Done():
		return message{}, fmt.Errorf("QEMU does not answer: %w", ctx.Err())
	}
}

// request is a command as it travels.
type request struct {
	Execute   string `json:"execute"`
	Arguments any    `json:"arguments,omitempty"`
	ID        uint64 `json:"id"`
}

func (c *Client) expect() (uint64, <-chan message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next++
	answer := make(chan message, 1)
	c.waiting[c.next] = answer
	return c.next, answer
}

func (c *Client) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

func (c *Client) send(ctx context.Context, line []byte) error {
	until, _ := ctx.Deadline()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.conn.SetWriteDeadline(until); err != nil {
		return err
	}
	_, err := c.conn.Write(line)
	if err != nil {
		_ = c.conn.Close() // a part of the line may have gone out
	}
	return err
}

// read reads until the session is over.
func (c *Client) read(greeted chan<- struct{}) {
	lines := bufio.NewScanner(c.conn)
	lines.Buffer(nil, maxLine)
	err := c.messages(lines, greeted)
	if err == nil {
		err = lines.Err()
	}
	if err == nil {
		err = errors.New("QEMU has closed the connection")
	}
	c.err = fmt.Errorf("qmp: %w", err)
	_ = c.conn.Close()
	close(c.gone)
}

func (c *Client) messages(lines *bufio.Scanner, greeted chan<- struct{}) error {
	for lines.Scan() {
		m, err := parse(lines.Bytes())
		if err != nil {
			return err
		}
		switch m.kind() {
		case aGreeting:
			if greeted == nil {
				return errors.New("a second greeting")
			}
			close(greeted)
			greeted = nil
		case anEvent:
			c.hear(Event{m.Event, m.Data})
		case anAnswer:
			c.answer(m)
		}
	}
	return nil
}

// answer hands an answer to who waits for it, if anybody still does.
func (c *Client) answer(m message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if answer := c.waiting[*m.ID]; answer != nil {
		answer <- m
		delete(c.waiting, *m.ID)
	}
}
