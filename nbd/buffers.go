package nbd

import (
	"bytes"
	"math/bits"
	"slices"
	"sync"
	"time"
)

const (
	// smallestBuffer is what the first class of buffers holds, as a power of two.
	smallestBuffer = 12
	// bufferClasses go up to wire.MaxPayload.
	bufferClasses = 15
	// keptBytes is how much an export keeps for the next requests.
	keptBytes = 16 << 20
	// keptTime is how long it keeps at least what nobody needs. An export with idle clients keeps nothing.
	keptTime = 2 * time.Second
)

// buffers is an export's pool of payload memory. What it holds has carried the disk's plaintext, so nothing goes
// back to the Go heap unwiped, and a closed pool keeps nothing.
type buffers struct {
	mu     sync.Mutex
	free   [bufferClasses][][]byte
	least  [bufferClasses]int // of free, since the pool was trimmed
	kept   int                // bytes that are free
	lent   int                // bytes that are not
	closed bool
	timer  *time.Timer // that trims, nil before there was anything to keep
	armed  bool
}

// bufferClass is the class whose buffers hold n bytes.
func bufferClass(n int) int {
	if n <= 1<<smallestBuffer {
		return 0
	}
	return bits.Len(uint(n-1)) - smallestBuffer
}

// get returns n bytes of anything.
func (p *buffers) get(n int) []byte {
	class := bufferClass(n)
	size := 1 << (class + smallestBuffer)
	p.mu.Lock()
	p.lent += size
	last := len(p.free[class]) - 1
	if last < 0 {
		p.mu.Unlock()
		return make([]byte, n, size)
	}
	defer p.mu.Unlock()
	b := p.free[class][last]
	p.free[class][last] = nil
	p.free[class] = p.free[class][:last]
	p.least[class] = min(p.least[class], last)
	p.kept -= size
	return b[:n]
}

// put takes back what get gave; b may be nil.
func (p *buffers) put(b []byte) {
	if cap(b) == 0 {
		return
	}
	if !p.keep(b) {
		erase(b)
	}
}

// keep tells whether the pool has room for b and has taken it.
func (p *buffers) keep(b []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lent -= cap(b)
	if p.closed || p.kept+cap(b) > keptBytes {
		return false
	}
	class := bufferClass(cap(b))
	p.free[class] = append(p.free[class], b)
	p.kept += cap(b)
	if p.timer == nil {
		p.timer = time.AfterFunc(keptTime, p.trim)
	} else if !p.armed {
		p.timer.Reset(keptTime)
	}
	p.armed = true
	return true
}

// trim wipes and drops what nobody has needed since the last time.
func (p *buffers) trim() {
	p.mu.Lock()
	var idle [][]byte
	for class, free := range p.free {
		n := p.least[class]
		idle = append(idle, free[:n]...)
		p.free[class] = append([][]byte(nil), free[n:]...)
		p.least[class] = len(p.free[class])
	}
	for _, b := range idle {
		p.kept -= cap(b)
	}
	p.armed = p.kept > 0
	if p.armed {
		p.timer.Reset(keptTime)
	}
	p.mu.Unlock()
	for _, b := range idle {
		erase(b)
	}
}

// wipe clears and drops everything that is not in use.
func (p *buffers) wipe() {
	p.mu.Lock()
	free := p.free
	p.free, p.least = [bufferClasses][][]byte{}, [bufferClasses]int{}
	p.kept = 0
	p.mu.Unlock()
	for _, class := range free {
		for _, b := range class {
			erase(b)
		}
	}
}

// close wipes the pool, now and whenever a buffer that is still in use comes back.
func (p *buffers) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.wipe()
}

// erase clears all of b but pages of zeros. Most of a loan was never written to: only read, what has no memory behind it gets none.
func erase(b []byte) {
	for page := range slices.Chunk(b[:cap(b)], len(zeroPage)) {
		if !bytes.Equal(page, zeroPage[:len(page)]) {
			clear(page)
		}
	}
}

var zeroPage [4 << 10]byte
