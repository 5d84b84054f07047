//go:build !race

package keystore

import (
	"bytes"
	"encoding/binary"
	"testing"
	"unsafe"

	"nbdcrypt/pkg/secret/secrettest"
)

// TestDerivationsKeepTheirStack: while a key is derived, 16 bytes of what is secret are never together on the stack, in whichever order
// of bytes. secret.Do wipes it only afterwards.
func TestDerivationsKeepTheirStack(t *testing.T) {
	root := bytes.Repeat([]byte("root key"), 4)
	mem, got := make([]byte, hkdfSize), make([]byte, keySize)
	h := hashState(mem)
	left := secrettest.StackAfter(func() { h.derive(got, material{key: root, salt: []byte("salt")}, identity("id")) })
	for name, key := range map[string][]byte{"root": root, "prk": h.prk[:], "inner": h.inner[:], "okm": h.okm[:]} {
		if at := sixteenOf(left, key); at >= 0 {
			t.Errorf("bytes of %s are %d bytes down the stack", name, secrettest.Below-at)
		}
	}
	planted := secrettest.StackAfter(func() {
		copied := [8]uint32(h.state)
		secrettest.Keep(unsafe.Slice((*byte)(unsafe.Pointer(&copied)), keySize))
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
