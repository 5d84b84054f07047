// Package secrettest looks at what a computation on keys leaves on the stack, for the tests of those who compute on keys.
package secrettest

import (
	"runtime/debug"
	"unsafe"
)

// Below is how much stack StackAfter looks at.
const Below = 16 << 10

// StackAfter returns what f leaves on the stack, the deepest first. It shows nothing under the race detector.
//
//go:noinline
func StackAfter(f func()) []byte {
	debug.SetGCPercent(-1) // it would move the stack
	defer debug.SetGCPercent(100)
	left := make([]byte, Below)
	grow()
	f()
	var here byte
	at := uintptr(unsafe.Pointer(&here)) - Below
	copy(left, unsafe.Slice(*(**byte)(unsafe.Pointer(&at)), Below))
	return left
}

//go:noinline
func grow() {
	var below [2 * Below]byte
	Keep(below[:])
}

// Keep makes the compiler believe that its argument is needed, and leaves it on the stack.
//
//go:noinline
func Keep([]byte) {}
