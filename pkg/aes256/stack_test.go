//go:build !race

package aes256

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

// TestKeysStayOffTheStack: while keys are expanded and messages sealed, no round key as a whole, and not GHASH's key, is on the stack.
// secret.Do wipes it only afterwards.
func TestKeysStayOffTheStack(t *testing.T) {
	mem := InsecureMemory(GCMSize + 2*Size)
	enc, dec := (*Schedule)(unsafe.Pointer(&mem[GCMSize])), (*Schedule)(unsafe.Pointer(&mem[GCMSize+Size]))
	key := [KeySize]byte([]byte("a key of 32 bytes that is secret"))
	var g *GCM
	left := stackAfter(func() {
		enc.expandGeneric(&key)
		dec.invertGeneric(enc)
		g, _ = NewGCM(mem[:GCMSize], key[:])
		g.Seal(make([]byte, 48), make([]byte, NonceSize), make([]byte, 32), []byte("associated"))
	})
	for r := range enc {
		for name, s := range map[string]*Schedule{"encryption": enc, "decryption": dec} {
			words := &s[r][0]
			if bytes.Contains(left, unsafe.Slice((*byte)(unsafe.Pointer(words)), BlockSize)) {
				t.Errorf("round key %d of %s is on the stack", r, name)
			}
		}
	}
	h := g.keys.h
	for _, half := range [][]byte{h[:8], h[8:]} {
		if bytes.Contains(left, half) || bytes.Contains(left, binary.LittleEndian.AppendUint64(nil, binary.BigEndian.Uint64(half))) {
			t.Error("half of GHASH's key is on the stack")
		}
	}
	planted := stackAfter(func() {
		copied := h
		keepStack(copied[:])
	})
	if !bytes.Contains(planted, h[:]) {
		t.Error("control: a copy on the stack is not found")
	}
}
