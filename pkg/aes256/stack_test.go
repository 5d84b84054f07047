//go:build !race

package aes256

import (
	"bytes"
	"encoding/binary"
	"testing"
	"unsafe"

	"nbdcrypt/pkg/secret/secrettest"
)

// TestKeysStayOffTheStack: while keys are expanded and messages sealed, no round key as a whole, and not GHASH's key, is on the stack.
// secret.Do wipes it only afterwards.
func TestKeysStayOffTheStack(t *testing.T) {
	mem := InsecureMemory(GCMSize + 2*Size)
	enc, dec := (*Schedule)(unsafe.Pointer(&mem[GCMSize])), (*Schedule)(unsafe.Pointer(&mem[GCMSize+Size]))
	key := [KeySize]byte([]byte("a key of 32 bytes that is secret"))
	var g *GCM
	left := secrettest.StackAfter(func() {
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
	planted := secrettest.StackAfter(func() {
		copied := h
		secrettest.Keep(copied[:])
	})
	if !bytes.Contains(planted, h[:]) {
		t.Error("control: a copy on the stack is not found")
	}
}
