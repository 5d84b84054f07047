package nbdclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"nbdcrypt/nbd/internal/wire"
)

// farewell is how long Disconnect waits for the server to finish.
const farewell = 10 * time.Second

// ErrClosed is the answer to a request on a connection that was disconnected.
var ErrClosed = errors.New("nbdclient: disconnected")

// Client is one connection to an export. Its methods may be called from many goroutines at once; each call is a
// request in flight. Errors of the server are syscall.Errno.
type Client struct {
	nc   net.Conn
	info Info

	send sync.Mutex // one request's header and payload at a time

	mu      sync.Mutex
	pending map[uint64]*call
	cookie  uint64
	ended   error // why there are no more answers
	done    chan struct{}
}

// call is a request that waits for its answer; data takes what a READ brings.
type call struct {
	data   []byte
	answer chan error
}

// Dial connects to the export that uri names. The context bounds connecting and the handshake.
func Dial(ctx context.Context, uri string) (*Client, error) {
	target, err := ParseURI(uri)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unix", target.Socket)
	if err != nil {
		return nil, fmt.Errorf("nbdclient: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	info, err := Handshake(nc, target.Export)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	c := &Client{nc: nc, info: info, pending: make(map[uint64]*call), done: make(chan struct{})}
	go c.receive()
	return c, nil
}

// Size is the export's size when it was opened.
func (c *Client) Size() int64 { return c.info.Size }

// Info is what the server told about the export.
func (c *Client) Info() Info { return c.info }

// receive reads answers until the connection ends; every call that still waits then gets the reason.
func (c *Client) receive() {
	defer close(c.done)
	for {
		if err := c.receiveOne(); err != nil {
			c.nc.Close()
			c.end(err)
			return
		}
	}
}

func (c *Client) receiveOne() error {
	var head [wire.ReplySize]byte
	if _, err := io.ReadFull(c.nc, head[:]); err != nil {
		return fmt.Errorf("nbdclient: reply: %w", err)
	}
	reply, ok := wire.DecodeReply(&head)
	if !ok {
		return errors.New("nbdclient: reply: wrong magic number")
	}
	waiting := c.claim(reply.Cookie)
	if waiting == nil {
		return fmt.Errorf("nbdclient: reply to %#x, which was not asked", reply.Cookie)
	}
	if reply.Error != 0 {
		waiting.answer <- wire.Errno(reply.Error)
		return nil
	}
	_, err := io.ReadFull(c.nc, waiting.data)
	if err != nil {
		err = fmt.Errorf("nbdclient: reply data: %w", err)
	}
	waiting.answer <- err
	return err
}

// claim takes a call out of those that wait.
func (c *Client) claim(cookie uint64) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	waiting := c.pending[cookie]
	delete(c.pending, cookie)
	return waiting
}

func (c *Client) end(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended == nil {
		c.ended = why
	}
	for cookie, waiting := range c.pending {
		delete(c.pending, cookie)
		waiting.answer <- c.ended
	}
}

// do sends one request and waits for its answer. payload follows the request, data takes the answer's.
func (c *Client) do(r wire.Request, payload, data []byte) error {
	waiting := &call{data: data, answer: make(chan error, 1)}
	if err := c.enter(&r, waiting); err != nil {
		return err
	}
	c.write(r, payload)
	return <-waiting.answer
}

// enter gives the request a cookie under which its answer will be found.
func (c *Client) enter(r *wire.Request, waiting *call) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		return c.ended
	}
	c.cookie++
	r.Cookie = c.cookie
	c.pending[r.Cookie] = waiting
	return nil
}

// write sends a request. Where it fails the connection is of no use: closing it ends receive, and with that every
// call.
func (c *Client) write(r wire.Request, payload []byte) {
	c.send.Lock()
	defer c.send.Unlock()
	parts := net.Buffers{wire.AppendRequest(nil, r), payload}
	if _, err := parts.WriteTo(c.nc); err != nil {
		c.nc.Close()
	}
}

// Disconnect says goodbye and waits for the server to finish what is outstanding. Later calls get ErrClosed.
func (c *Client) Disconnect() error {
	c.mu.Lock()
	if c.ended == nil {
		c.ended = ErrClosed // before the server hangs up, which would be the reason else
	}
	c.mu.Unlock()
	c.write(wire.Request{Type: wire.CmdDisc}, nil)
	if err := c.nc.SetReadDeadline(time.Now().Add(farewell)); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("nbdclient: disconnect: %w", err)
	}
	<-c.done
	return nil
}
