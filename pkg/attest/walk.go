package attest

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/secret"
)

const (
	// pieceSize is how much is read at a time.
	pieceSize = 16 << 10
	// overlap is how much of a piece is looked at again with the next, for what lies across both.
	overlap = len(window{}) - 1
)

// A walk goes through memory from below. What it reads it holds in key memory, so that a key that it comes by is not copied to
// where the next search would find it.
type walk struct {
	printer *printer
	sieve   *sieve
	work    *secret.Key
	kept    int     // bytes of the overlap before the next piece
	end     uintptr // of what was read last
	found   []place // in the last piece

	read, unreadable int64
}

// A place is where a trace was found.
type place struct {
	address uintptr
	trace   trace
}

func newWalk(p *printer, s *sieve) (*walk, error) {
	work, err := secret.Work(1+overlap+pieceSize, secret.Purpose{Kind: "attest", For: "reading this process's memory"})
	if err != nil {
		return nil, fmt.Errorf("attest: %w", err)
	}
	return &walk{printer: p, sieve: s, work: work}, nil
}

// piece reads and searches at most pieceSize bytes, and returns where to go on. The traces are in found.
func (w *walk) piece(from, to uintptr) (next uintptr, err error) {
	if from != w.end {
		w.kept = 0
	}
	w.found = w.found[:0]
	before := 1 + overlap
	b := w.work.Bytes()
	n, err := readMemory(b[before:][:min(pieceSize, to-from)], from)
	if err != nil {
		return from, err
	}
	if n == 0 {
		page := uintptr(os.Getpagesize())
		next = min(to, (from/page+1)*page)
		w.unreadable += int64(next - from)
		return next, nil
	}
	w.read += int64(n)
	b = b[before-w.kept : before+n]
	secret.Do(func() { w.look(b, from-uintptr(w.kept)) })
	w.kept = min(overlap, len(b))
	w.end = from + uintptr(n)
	copy(w.work.Bytes()[before-w.kept:], b[len(b)-w.kept:])
	return w.end, nil
}

// look holds every window of b, which is a copy of what lies at an address, against what is looked for.
func (w *walk) look(b []byte, address uintptr) {
	var p print
	for i := w.sieve.next(b, 0, w.printer.multiplier); i >= 0; i = w.sieve.next(b, i+1, w.printer.multiplier) {
		w.printer.take(&p, (*window)(b[i:]))
		for _, t := range w.sieve.known[p.strong] {
			w.found = append(w.found, place{address + uintptr(i), t})
		}
	}
}

// readMemory copies memory of this process, as far as it can be read; 0 bytes mean that its first page can't. It asks the kernel, as
// memory may go away meanwhile, and in the one way that is open to a process that is not dumpable.
func readMemory(to []byte, from uintptr) (int, error) {
	local := [1]unix.Iovec{{Base: &to[0]}}
	local[0].SetLen(len(to))
	remote := [1]unix.RemoteIovec{{Base: from, Len: len(to)}}
	n, err := unix.ProcessVMReadv(os.Getpid(), local[:], remote[:], 0)
	if errors.Is(err, unix.EFAULT) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("attest: this process can't read its own memory: process_vm_readv: %w", err)
	}
	return n, nil
}
