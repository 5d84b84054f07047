//go:build !race

package keystore

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"
	"unsafe"

	"github.com/google/uuid"
)

// floats are where Go returns floating-point results: the lower halves of the first vector registers.
type floats [8]float64

// registersAfter returns what f leaves in vector registers. It calls f as if it had results.
//
//go:noinline
func registersAfter(f func()) (b []byte) {
	type results func() (a, b, c, d, e, f, g, h float64)
	var r floats
	r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7] = (*(*results)(unsafe.Pointer(&f)))()
	for _, v := range r {
		b = binary.NativeEndian.AppendUint64(b, math.Float64bits(v))
	}
	return b
}

// TestKeysStayOutOfVectorRegisters: what moves keys leaves none of them in registers until secret.Do ends, which may take a while.
func TestKeysStayOutOfVectorRegisters(t *testing.T) {
	key, got := []byte("a key of 32 bytes that is secret"), make([]byte, keySize)
	h := hashState(make([]byte, hkdfSize))
	slot := make([]byte, pairSize)
	e := &eraseFile{}
	copy(slot[slotKeyAt:], key)
	fillSlot(slot[:slotSize], e.store, 1, uuid.UUID{1})
	for name, f := range map[string]func(){
		"derive": func() { h.derive(got, material{key: key}, identity("id")) },
		"hash":   func() { h.begin(); h.write(key) },
		"pick":   func() { e.pick(got, slot, 1, uuid.UUID{1}) },
	} {
		copyKey(got, make([]byte, keySize)) // what was there before
		left := registersAfter(f)
		for _, secret := range [][]byte{key, got, h.inner[:], h.prk[:]} {
			for i := 0; i < keySize; i += 16 {
				if bytes.Contains(left, secret[i:i+8]) && !allZero(secret) {
					t.Errorf("%s leaves bytes of a key in vector registers", name)
				}
			}
		}
	}
	if !bytes.Contains(registersAfter(func() { copyKey(got, key) }), key[:8]) {
		t.Error("control: a copy in registers is not found")
	}
}

//go:noinline
func copyKey(dst, src []byte) { copy(dst, src) }
