//go:build !race

package keystore

import (
	"bytes"
	"encoding/binary"
	"runtime/debug"
	"testing"
	"unsafe"
)

const stackBelow = 16 << 10

// stackAfter returns what f leaves on the stack.
//
//go:noinline
func stackAfter(f func()) []byte {
	debug.SetGCPercent(-1) // it would move the stack
	defer debug.SetGCPercent(100)
	left := make([]byte, stackBelow)
	growStack()
	f()
	var here byte
	at := uintptr(unsafe.Pointer(&here)) - stackBelow
	copy(left, unsafe.Slice(*(**byte)(unsafe.Pointer(&at)), stackBelow))
	return left
}

//go:noinline
func growStack() {
	var below [2 * stackBelow]byte
	keepStack(below[:])
}

//go:noinline
func keepStack([]byte) {}

// TestDerivationsKeepTheirStack: while a key is derived, 16 bytes of what is secret are never together on the stack, in whichever order
// of bytes. secret.Do wipes it only afterwards.
func TestDerivationsKeepTheirStack(t *testing.T) {
	root := bytes.Repeat([]byte("root key"), 4)
	mem, got := make([]byte, hkdfSize), make([]byte, keySize)
	h := hashState(mem)
	left := stackAfter(func() { h.derive(got, material{key: root, salt: []byte("salt")}, identity("id")) })
	for name, key := range map[string][]byte{"root": root, "prk": h.prk[:], "inner": h.inner[:], "okm": h.okm[:]} {
		if at := sixteenOf(left, key); at >= 0 {
			t.Errorf("bytes of %s are %d bytes down the stack", name, stackBelow-at)
		}
	}
	planted := stackAfter(func() {
		copied := [8]uint32(h.state)
		keepStack(unsafe.Slice((*byte)(unsafe.Pointer(&copied)), keySize))
	})
	if sixteenOf(planted, h.okm[:]) < 0 {
		t.Error("control: a copy on the stack is not found")
	}
}

// sixteenOf finds 16 bytes of a key, also where each word has the other order, or -1.
func sixteenOf(in, key []byte) int {
	swapped := make([]byte, len(key))
	for i := 0; i < len(key); i += 4 {
		binary.LittleEndian.PutUint32(swapped[i:], binary.BigEndian.Uint32(key[i:]))
	}
	for i := 0; i+16 <= len(key); i += 4 {
		for _, form := range [][]byte{key, swapped} {
			if at := bytes.Index(in, form[i:i+16]); at >= 0 {
				return at
			}
		}
	}
	return -1
}
