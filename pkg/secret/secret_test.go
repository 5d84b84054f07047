package secret

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"unsafe"
)

// arenas are all kinds of memory; each test of an arena runs on every one that the kernel has.
func arenas(t *testing.T, f func(t *testing.T, a *arena)) {
	for _, m := range []mapper{mapSecret, mapLocked} {
		t.Run(m.kind, func(t *testing.T) {
			a := newArena(m)
			k, err := a.key(1, Purpose{}, false)
			if err != nil {
				t.Skip(err)
			}
			k.Destroy()
			f(t, a)
		})
	}
}

func TestKeyIsZeroedAlignedAndClipped(t *testing.T) {
	arenas(t, func(t *testing.T, a *arena) {
		for _, n := range []int{1, 32, 63, 64, 65, 1024, chunkSize} {
			k, err := a.key(n, Purpose{}, false)
			if err != nil {
				t.Fatal(err)
			}
			b := k.Bytes()
			if len(b) != n || cap(b) != n || k.Len() != n {
				t.Errorf("key of %d: len %d, cap %d, Len %d", n, len(b), cap(b), k.Len())
			}
			if uintptr(unsafe.Pointer(&b[0]))%64 != 0 {
				t.Errorf("key of %d at %p", n, &b[0])
			}
			if !bytes.Equal(b, make([]byte, n)) {
				t.Errorf("key of %d is not zeroed", n)
			}
			for i := range b {
				b[i] = 0xff
			}
			k.Destroy()
		}
	})
}

func TestSizeIsChecked(t *testing.T) {
	for _, n := range []int{-1, 0, chunkSize + 1} {
		if k, err := New(n, Purpose{}); err == nil {
			t.Errorf("New(%d) = %v", n, k)
		}
	}
}

func TestDestroyWipesBeforeTheCellsAreFree(t *testing.T) {
	arenas(t, func(t *testing.T, a *arena) {
		k, err := a.key(100, Purpose{}, false)
		if err != nil {
			t.Fatal(err)
		}
		b := k.Bytes()
		copy(b, strings.Repeat("s", 100))
		k.Destroy()
		if !bytes.Equal(b, make([]byte, 100)) {
			t.Error("the bytes are still there")
		}
		k.Destroy()
		if k.Len() != 0 || a.stats().Keys != 0 || a.stats().Used != 0 {
			t.Errorf("after Destroy: Len %d, %+v", k.Len(), a.stats())
		}
		defer func() {
			if recover() == nil {
				t.Error("Bytes of a destroyed key did not panic")
			}
		}()
		k.Bytes()
	})
}

func TestRandomAndEqual(t *testing.T) {
	a, err := Random(64, Purpose{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Destroy()
	b, err := Random(64, Purpose{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Destroy()
	if a.Equal(b) || bytes.Equal(a.Bytes(), make([]byte, 64)) {
		t.Error("two random keys are equal, or one is zero")
	}
	copy(b.Bytes(), a.Bytes())
	if !a.Equal(b) {
		t.Error("equal keys differ")
	}
	b.Bytes()[63] ^= 1
	if a.Equal(b) {
		t.Error("different keys are equal")
	}
}

// TestKeyIsNeverShown writes a recognizable key every way that Go has of writing a value.
func TestKeyIsNeverShown(t *testing.T) {
	k, err := New(16, Purpose{})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Destroy()
	copy(k.Bytes(), "PLAINTEXTKEYBYTE")
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%X", "%s", "%q", "%d"} {
		if got := fmt.Sprintf(verb, k); got != redacted {
			t.Errorf("%s prints %q", verb, got)
		}
	}
	holder := struct{ Key *Key }{k}
	out := new(bytes.Buffer)
	fmt.Fprintf(out, "%v %+v %x", holder, &holder, []*Key{k})
	slog.New(slog.NewTextHandler(out, nil)).Info("m", "key", k)
	slog.New(slog.NewJSONHandler(out, nil)).Info("m", "key", k, "holder", holder)
	for name, encode := range map[string]func(io.Writer) error{
		"json": func(w io.Writer) error { return json.NewEncoder(w).Encode(holder) },
		"xml":  func(w io.Writer) error { return xml.NewEncoder(w).Encode(holder) },
		"gob":  func(w io.Writer) error { return gob.NewEncoder(w).Encode(holder) },
	} {
		if err := encode(out); err == nil {
			t.Errorf("%s marshals a key", name)
		}
	}
	for _, shown := range []string{"PLAINTEXT", "504c41494e", "UExBSU5U", "80 76 65 73"} {
		if strings.Contains(strings.ToLower(out.String()), strings.ToLower(shown)) {
			t.Errorf("the key was shown in %q", out)
		}
	}
}
