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
	"crypto/subtle"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
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
	arena   *arena
	chunk   *chunk
	first   int
	mem     []byte
	purpose Purpose
	since   time.Time
}

// Purpose says what a key is and why it is in memory, in words that anybody may read.
type Purpose struct {
	Kind string // what it is: "root", "cmk", "dek"
	ID   string
	For  string // what needs it
}

// process is the arena of all keys: the limit on locked memory is one for the process, and so is its bookkeeping.
var process = newArena(mapSecret, mapLocked)

// New returns a key of n zero bytes at an address divisible by 64. It is there until Destroy, and List tells why.
func New(n int, why Purpose) (*Key, error) { return process.key(n, why, false) }

// Random returns a key of n bytes from the system's generator, written straight into the key's memory.
func Random(n int, why Purpose) (*Key, error) { return random(New(n, why)) }

// Work is New for what lasts as long as one computation. Some memory is kept for it, so that with key memory full of keys
// those that are there can still be worked with, and given up.
func Work(n int, why Purpose) (*Key, error) { return process.key(n, why, true) }

// RandomWork is Random for what lasts as long as one computation.
func RandomWork(n int, why Purpose) (*Key, error) { return random(Work(n, why)) }

func random(k *Key, err error) (*Key, error) {
	if err != nil {
		return nil, err
	}
	if err := draw(k.Bytes()); err != nil {
		k.Destroy()
		return nil, fmt.Errorf("secret: the system's random numbers: %w", err)
	}
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

// The kinds of memory for keys, the better one first.
const (
	MemfdSecret  = "memfd_secret"
	LockedMemory = "locked memory"
)

// Usage is what Stats reports.
type Usage struct {
	Kind   string // MemfdSecret or LockedMemory; empty before the first key
	Used   int64  // bytes held by keys, in cells of 64
	Locked int64  // bytes that are locked for keys, held or free
	Limit  int64  // bytes that the process may lock; 0 when nothing limits it
	Keys   int
}

// Stats reports on the memory of all keys.
func Stats() Usage { usage, _ := Snapshot(); return usage }

// Held is a key that is in memory now.
type Held struct {
	Purpose
	Since time.Time
	Size  int
}

// List tells which keys are in memory now, the oldest first.
func List() []Held { _, held := Snapshot(); return held }

// Snapshot is Stats and List of one moment.
func Snapshot() (Usage, []Held) { return process.snapshot() }

// Span is a range of addresses.
type Span struct{ From, To uintptr }

// Spans tells where the memory for keys lies, whoever holds it now.
func Spans() []Span { return process.spans() }

// Unwiped counts bytes that are not zero in memory that no key holds. It is 0 unless something wrote to a destroyed key.
func Unwiped() int { return process.unwiped() }

// Restrict makes all keys lie in one kind of memory, as Usage names it. It must be called before the first key.
func Restrict(kind string) error { return process.restrict(kind) }
