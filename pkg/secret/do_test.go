//go:build !race

package secret

import (
	"bytes"
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
