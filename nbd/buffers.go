package nbd

import (
	"math/bits"
	"sync"
)

const (
	// smallestBuffer is what the first class of buffers holds, as a power of two.
	smallestBuffer = 12
	// bufferClasses go up to wire.MaxPayload.
	bufferClasses = 15
	// keptBytes is how much an export keeps for the next requests.
	keptBytes = 16 << 20
)

// buffers is an export's pool of payload memory. What it holds has carried the disk's plaintext, so nothing goes
// back to the Go heap unwiped, and a closed pool keeps nothing.
type buffers struct {
	mu     sync.Mutex
	free   [bufferClasses][][]byte
	kept   int
	closed bool
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
	p.mu.Lock()
	if last := len(p.free[class]) - 1; last >= 0 {
		b := p.free[class][last]
		p.free[class][last] = nil
		p.free[class] = p.free[class][:last]
		p.kept -= cap(b)
		p.mu.Unlock()
		return b[:n]
	}
	p.mu.Unlock()
	return make([]byte, n, 1<<(class+smallestBuffer))
}

// put takes back what get gave; b may be nil.
func (p *buffers) put(b []byte) {
	if cap(b) == 0 {
		return
	}
	p.mu.Lock()
	if !p.closed && p.kept+cap(b) <= keptBytes {
		class := bufferClass(cap(b))
		p.free[class] = append(p.free[class], b)
		p.kept += cap(b)
		b = nil
	}
	p.mu.Unlock()
	clear(b[:cap(b)])
}

// wipe clears and drops everything that is not in use.
func (p *buffers) wipe() {
	p.mu.Lock()
	free := p.free
	p.free = [bufferClasses][][]byte{}
	p.kept = 0
	p.mu.Unlock()
	for _, class := range free {
		for _, b := range class {
			clear(b[:cap(b)])
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
