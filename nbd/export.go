package nbd

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"nbdcrypt/nbd/internal/wire"
)

// lingerTime is how long the connections of a drained export live on, so that clients hear ESHUTDOWN and not a reset.
const lingerTime = 5 * time.Second

// Options are an export's settings.
type Options struct {
	ReadOnly    bool
	Description string
	// Admits tells who may have the export open, besides what Exports says when it is asked; nil is everybody. Once it
	// answers differently, Review holds the connections against it.
	Admits func(Peer) bool
}

// Export is a device under a name, for as long as one attachment lasts. All its connections are one fsync domain
// (spec item 15). It ends with Drain and does not start again: the next attachment is a new Export.
type Export struct {
	name     string
	options  Options
	device   abilities
	gate     *gate
	memory   buffers
	counters counters
	linger   time.Duration
	// known is a size that the device had.
	known  atomic.Uint64
	pacing pacing

	mu    sync.Mutex
	conns map[*conn]struct{}
	// left is made by HangUp, and closed when no connection is left.
	left chan struct{}
}

// NewExport makes an export that answers requests until Drain.
func NewExport(name string, dev Device, options Options) *Export {
	return &Export{
		name:    name,
		options: options,
		device:  abilitiesOf(dev),
		gate:    newGate(),
		linger:  lingerTime,
		conns:   make(map[*conn]struct{}),
	}
}

// Name is the export's canonical name.
func (e *Export) Name() string { return e.name }

// Clients is how many connections have the export open.
func (e *Export) Clients() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.conns)
}

// Drain refuses new requests with ESHUTDOWN and waits for the device calls in progress. Once it returned nil no
// goroutine touches the device again, and the caller may sync it and wipe its key; buffers that carried plaintext
// are wiped, save those of payloads that are on their way from or to a client, which are wiped when they have
// arrived or their connection ends, a few seconds later. After an error Drain may be called again.
func (e *Export) Drain(ctx context.Context) error {
	e.refuseNew()
	select {
	case <-e.gate.empty:
		e.memory.close()
		return nil
	case <-ctx.Done():
		return fmt.Errorf("nbd: draining export %q: %w", e.name, ctx.Err())
	}
}

// refuseNew shuts the gate, once, and sets the time at which the connections end.
func (e *Export) refuseNew() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.gate.isShut() {
		return
	}
	e.gate.shut()
	if len(e.conns) > 0 {
		time.AfterFunc(e.linger, func() { e.each((*conn).finish) })
	}
}

// HangUp ends every connection in good order and waits for that: requests that were read are answered, nobody hears ESHUTDOWN, and nobody
// comes in any more. It is for clients that wait for the next server and go on there, as a kernel does: to it ESHUTDOWN is an error of the disk.
// Drain comes after it.
func (e *Export) HangUp(ctx context.Context) error {
	e.mu.Lock()
	if e.left == nil {
		e.left = make(chan struct{})
		if len(e.conns) == 0 {
			close(e.left)
		}
	}
	e.mu.Unlock()
	e.each((*conn).finish)
	select {
	case <-e.left:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("nbd: hanging up on the clients of %q: %w", e.name, ctx.Err())
	}
}

// Close refuses new requests and cuts every connection of the export at once.
func (e *Export) Close() {
	e.refuseNew()
	e.each((*conn).cut)
}

func (e *Export) each(act func(*conn)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.conns {
		act(c)
	}
}

func (e *Export) admits(c *conn) bool { return e.options.Admits == nil || e.options.Admits(c.peer) }

// Review ends, in good order, the connections of those whom Admits lets in no more, and tells how many. Nobody slips in meanwhile: who
// joins is asked about under the same lock.
func (e *Export) Review() (ended int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.conns {
		if !e.admits(c) {
			c.finish()
			ended++
		}
	}
	return ended
}

// join counts c in; false means that the export is on its way out, for c at least.
func (e *Export) join(c *conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.gate.isShut() || e.left != nil || !e.admits(c) {
		return false
	}
	e.conns[c] = struct{}{}
	return true
}

// part counts c out. An export without clients keeps no memory.
func (e *Export) part(c *conn) {
	e.mu.Lock()
	delete(e.conns, c)
	left := len(e.conns)
	if left == 0 && e.left != nil {
		close(e.left)
	}
	e.mu.Unlock()
	if left == 0 {
		e.memory.wipe()
	}
}

// flags are the transmission flags on a connection with these terms: only what works there (spec item 22).
func (e *Export) flags(t terms) uint16 {
	flags := wire.HasFlags | wire.SendFlush | wire.SendFUA | wire.CanMultiConn
	if t.structured {
		flags |= wire.SendDF
	}
	if e.device.cacher != nil {
		flags |= wire.SendCache
	}
	if e.options.ReadOnly {
		return flags | wire.ReadOnly
	}
	if e.device.trimmer != nil {
		flags |= wire.SendTrim
	}
	if e.device.fast != nil {
		flags |= wire.SendFastZero
	}
	return flags | wire.SendWriteZeroes
}

// size asks the device, unless it is gone already.
func (e *Export) size() (size int64, err error) {
	if !e.gate.enter() {
		return 0, ErrShutdown
	}
	defer e.gate.leave()
	defer rescue(&err)
	return e.device.Size()
}
