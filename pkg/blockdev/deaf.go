package blockdev

import (
	"bytes"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// hearTime is how often links are looked at that the kernel was not seen to read.
	hearTime = 500 * time.Millisecond
	// deafLooks is at how many of them in a row the same answer must lie there.
	deafLooks = 3
	// replySize and replyMagic are those of a simple reply, which each answer begins with.
	replySize  = 16
	replyMagic = "\x67\x44\x66\x98"
)

// hearing is what is known of whether the kernel reads a link.
type hearing struct {
	first [replySize]byte // the answer that lies there
	looks int             // at which it did
	does  bool
}

// listen sees to it, until Close, that the kernel reads all links.
//
// Each has a reader, which is a work in a queue of the kernel and ends with its connection. Where a thread for one is long in coming, since
// memory is short or the processors are busy, the queue's thread of last resort takes all works that wait, and is at the first until that ends: what
// is answered on the links of the others lies there, and their requests wait for the timeout. So it is in kernels without "workqueue: Process
// rescuer work items one-by-one using a cursor".
func (d *Device) listen() {
	for range time.Tick(hearTime) {
		if !d.hear() {
			return
		}
	}
}

// hear looks once; false tells that nobody keeps the device any more.
func (d *Device) hear() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.links {
		if l.deaf() {
			d.unblock(l)
		}
	}
	return !d.closed
}

// deaf tells that the same answer has been the first at several looks. Its cookie makes it one of its kind. Who was once seen to read goes on.
func (l *link) deaf() bool {
	h := &l.hearing
	if h.does {
		return false
	}
	var first [replySize]byte
	n, _, err := unix.Recvfrom(int(l.socket.Fd()), first[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	some := err == nil && n == replySize
	switch {
	case some && first == h.first:
		h.looks++
	case h.looks > 0, some && !bytes.HasPrefix(first[:], []byte(replyMagic)): // that is the middle of an answer
		h.does = true
	case some:
		h.first, h.looks = first, 1
	}
	return !h.does && h.looks >= deafLooks
}

// unblock ends the last link that was handed over before a deaf one: its reader is what that one's waits for. If it waits itself, the one before
// has its turn later. Only our half of the connection is ended: the server answers what it has read, and hangs up; then the link is dead, and
// reconnected like any other.
func (d *Device) unblock(deaf *link) {
	deaf.hearing.looks = 1 // what is done gets its time
	for i := slices.Index(d.links, deaf) - 1; i >= 0; i-- {
		if l := d.links[i]; !l.ending {
			l.ending = true
			_ = unix.Shutdown(int(l.socket.Fd()), unix.SHUT_WR) // one that has ended already is as good
			return
		}
	}
}
