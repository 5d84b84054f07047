// Package secret holds keys in memory that nothing else gets to see: off the Go heap, never swapped, not in a core dump,
// not inherited by a child, between guard pages, and wiped before it is used again.
//
// Where the kernel has memfd_secret(2) the pages are gone even from the kernel's own map, so that neither ptrace nor
// /proc/PID/mem reads them; elsewhere they are locked and left out of dumps. Stats tells which. Many keys share a mapping:
// a key costs its length rounded up to 64 bytes, and all of them count against RLIMIT_MEMLOCK.
//
// What it does not promise: a CPU register, or a copy that the caller makes of what Bytes lends, is out of its hands. There
// are no finalizers: a key that is forgotten instead of destroyed stays until the process ends.
package secret

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"sync/atomic"
)

// ErrFull says that the kernel grants this process no more locked memory. Errors that wrap it name what is used and the limit.
var ErrFull = errors.New("no more memory can be locked for keys")

// A Key is a run of secret bytes. It can't be printed, marshalled or compared with ==; its zero value is a destroyed key.
// All methods may be called at any time from any goroutine, but the memory that Bytes lends is the caller's to guard.
type Key struct {
	_     [0]func()
	lease atomic.Pointer[lease]
}

// A lease is a run of cells in an arena, held by one key.
type lease struct {
	arena *arena
	chunk *chunk
	first int
	mem   []byte
}

// process is the arena of all keys: the limit on locked memory is one for the process, and so is its bookkeeping.
var process = newArena(mapSecret, mapLocked)

// New returns a key of n zero bytes at an address divisible by 64.
func New(n int) (*Key, error) { return process.key(n) }

// Random returns a key of n bytes from the system's generator, written straight into the key's memory.
func Random(n int) (*Key, error) {
	k, err := New(n)
	if err != nil {
		return nil, err
	}
	rand.Read(k.Bytes()) // never fails: it ends the process instead
	return k, nil
}

// Bytes lends the memory itself, not a copy. The slice is good until Destroy, after which Bytes panics: an empty slice would
// be taken by many an algorithm as a key.
func (k *Key) Bytes() []byte {
	l := k.lease.Load()
	if l == nil {
		panic("secret: use of a destroyed key")
	}
	return l.mem
}

// Len is the length of the key, 0 once it is destroyed.
func (k *Key) Len() int {
	if l := k.lease.Load(); l != nil {
		return len(l.mem)
	}
	return 0
}

// Equal compares in a time that depends on the lengths only.
func (k *Key) Equal(other *Key) bool {
	return subtle.ConstantTimeCompare(k.Bytes(), other.Bytes()) == 1
}

// Destroy wipes the key and gives its memory back. A second call does nothing.
func (k *Key) Destroy() {
	if l := k.lease.Swap(nil); l != nil {
		l.arena.release(l)
	}
}

// Usage is what Stats reports.
type Usage struct {
	Kind  string // "memfd_secret" or "locked memory"; empty before the first key
	Used  int64  // bytes held by keys, in cells of 64
	Limit int64  // bytes that the process may lock; 0 when nothing limits it
	Keys  int
}

// Stats reports on the memory of all keys.
func Stats() Usage { return process.stats() }
