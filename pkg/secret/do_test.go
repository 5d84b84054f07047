//go:build !race

package secret

import (
	"bytes"
	"runtime"
	"testing"
	"unsafe"
)

var pattern = []byte("these are words that were left on a stack")

// leave puts the pattern on the stack and returns where. The address is no pointer, so that the array stays on the stack.
//
//go:noinline
func leave(at *uintptr) {
	var a [4096]byte
	copy(a[1000:], pattern)
	*at = uintptr(unsafe.Pointer(&a)) + 1000
	sink = a[1003]
}

//go:noinline
func left(at uintptr) bool {
	return bytes.Equal(unsafe.Slice(*(**byte)(unsafe.Pointer(&at)), len(pattern)), pattern)
}

// TestDoLeavesNothingOnTheStack looks into a frame that has ended. The control shows that it can.
func TestDoLeavesNothingOnTheStack(t *testing.T) {
	var at uintptr
	scrub() // so that the stack is large enough and stays where it is
	leave(&at)
	if !left(at) {
		t.Fatal("control: nothing is left without Do")
	}
	Do(func() { leave(&at) })
	if left(at) {
		t.Error("Do left what its function had on the stack")
	}
}

// TestDoStaysInPlace: the collector moves stacks that are larger than they need be, and leaves the old one as it is. The control shows
// that it moves one.
func TestDoStaysInPlace(t *testing.T) {
	moved := func(do func(func())) bool {
		var before, after uintptr
		do(func() {
			leave(&before)
			runtime.GC()
			leave(&after)
		})
		return before != after
	}
	if !moved(func(f func()) { scrub(); f() }) {
		t.Error("control: the collector moves nothing")
	}
	for depth := range 12 {
		after := make(chan bool)
		go func() { deep(depth); after <- moved(Do) }()
		if <-after {
			t.Errorf("a stack was moved while Do ran, called on one that was %d KiB deep before", 16*depth)
		}
	}
}

// deep makes the stack large enough for 16 KiB times n.
func deep(n int) byte {
	if n == 0 {
		return 0
	}
	var below [16 << 10]byte
	below[n] = deep(n - 1)
	return below[n] + below[n+1]
}

// TestDoCleansAfterPanics: a panic passes through and leaves nothing either.
func TestDoCleansAfterPanics(t *testing.T) {
	var at uintptr
	var got any
	func() {
		defer func() { got = recover() }()
		Do(func() {
			leave(&at)
			panic("as planned")
		})
	}()
	if got != "as planned" {
		t.Errorf("it panics with %v", got)
	}
	if left(at) {
		t.Error("a panic left what was on the stack")
	}
}

// TestDoIsEnded: who waits for a goroutine that ends itself does not wait for ever.
func TestDoIsEnded(t *testing.T) {
	defer func() {
		if err := recover(); err != errEnded {
			t.Errorf("it panics with %v", err)
		}
	}()
	Do(runtime.Goexit)
}
