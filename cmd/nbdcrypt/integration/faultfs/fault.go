package faultfs

import (
	"path"
	"slices"
	"sync"
	"syscall"
)

// Op names operations of a file system.
type Op string

// The operations that can fail. Sync is also that of a folder; a synchronous write is a Write and a Sync.
const (
	Open     Op = "open"
	Read     Op = "read"
	Write    Op = "write"
	Sync     Op = "sync"
	Allocate Op = "allocate" // punching holes, too
	Truncate Op = "truncate"
	Create   Op = "create" // files and folders
	Remove   Op = "remove" // files and folders
	Rename   Op = "rename"
)

// Fault is what happens to operations. One without Errno, Short and Lost only counts, or waits.
type Fault struct {
	Op    Op
	File  string        // as in path.Match, for the path below the mount; "" is all of them
	Errno syscall.Errno // the answer, with nothing done
	Short bool          // half of a read or write is done, and said to be
	Lost  bool          // a write is said to be done, and is not: the cache of a disk that loses it
	Wait  func()        // called before; other operations go on meanwhile
	Skip  int           // so many pass before the first that is hit
	Times int           // so many are hit; 0 is all
}

// active is a fault that was injected.
type active struct {
	Fault
	seen, hits int
}

// faults are those in force.
type faults struct {
	mu  sync.Mutex
	all []*active
}

// Inject has a fault in force until Heal, and returns how to ask how often it was met. Of several that fit, the first one counts.
func (f *faults) Inject(fault Fault) (hits func() int) {
	a := &active{Fault: fault}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, a)
	return func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return a.hits
	}
}

// Heal ends all faults. What waits goes on when its Wait returns.
func (f *faults) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = nil
}

// meet is called before each operation: it waits where that is asked for, and tells what is to happen.
func (f *faults) meet(op Op, file string) Fault {
	f.mu.Lock()
	i := slices.IndexFunc(f.all, func(a *active) bool { return a.hit(op, file) })
	var fault Fault
	if i >= 0 {
		fault = f.all[i].Fault
	}
	f.mu.Unlock()
	if fault.Wait != nil {
		fault.Wait()
	}
	return fault
}

// hit tells whether the operation meets this fault, and counts it.
func (a *active) hit(op Op, file string) bool {
	if a.Op != op {
		return false
	}
	if fits, err := path.Match(a.File, file); a.File != "" && (!fits || err != nil) {
		return false
	}
	a.seen++
	if a.seen <= a.Skip || a.Times > 0 && a.hits == a.Times {
		return false
	}
	a.hits++
	return true
}
