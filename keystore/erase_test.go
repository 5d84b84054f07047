package keystore

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/google/uuid"

	"nbdcrypt/pkg/secret"
)

func newErase(t *testing.T) (*eraseFile, string) {
	t.Helper()
	path, store := filepath.Join(t.TempDir(), "erase"), uuid.New()
	if err := createErase(path, store); err != nil {
		t.Fatal(err)
	}
	return reopenErase(t, path, store), path
}

func reopenErase(t *testing.T, path string, store uuid.UUID) *eraseFile {
	t.Helper()
	e, err := openErase(path, store)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.close() })
	return e
}

func allocate(t *testing.T, e *eraseFile, cmk uuid.UUID) (int64, []byte) {
	t.Helper()
	pair, key, err := e.allocate(cmk)
	if err != nil {
		t.Fatal(err)
	}
	defer key.Destroy()
	return pair, bytes.Clone(key.Bytes())
}

func wantEraseKey(t *testing.T, e *eraseFile, pair int64, cmk uuid.UUID, want []byte) {
	t.Helper()
	key, err := e.read(pair, cmk)
	if err != nil {
		t.Fatal(err)
	}
	defer key.Destroy()
	if !bytes.Equal(key.Bytes(), want) {
		t.Error("the erase key differs")
	}
}

func TestEraseKeysAreKeptAndDestroyed(t *testing.T) {
	e, path := newErase(t)
	a, b, c := uuid.New(), uuid.New(), uuid.New()
	pairA, keyA := allocate(t, e, a)
	pairB, keyB := allocate(t, e, b)
	e = reopenErase(t, path, e.store)
	wantEraseKey(t, e, pairA, a, keyA)
	wantEraseKey(t, e, pairB, b, keyB)
	if err := e.destroy(pairA, b); !errors.Is(err, errSlot) {
		t.Errorf("destroying in another's name: %v", err)
	}
	if err := e.destroy(pairA, a); err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(path); err != nil || bytes.Contains(raw, keyA) || !bytes.Contains(raw, keyB) {
		t.Error("the destroyed key is still there, or the other is not")
	}
	if _, err := e.read(pairA, a); !errors.Is(err, errSlot) {
		t.Errorf("reading what is destroyed: %v", err)
	}
	e = reopenErase(t, path, e.store)
	if pairC, _ := allocate(t, e, c); pairC != pairA {
		t.Errorf("a free pair is not used: %d", pairC)
	}
	wantEraseKey(t, e, pairB, b, keyB)
}

// A pair that a record names is given to nobody else, also where the file is cut or older than the record.
func TestNamedPairsAreNotReused(t *testing.T) {
	e, path := newErase(t)
	pairA, _ := allocate(t, e, uuid.New())
	pairB, _ := allocate(t, e, uuid.New())
	must0(t, os.Truncate(path, pairB*pairSize))
	e = reopenErase(t, path, e.store)
	e.keepFor(map[int64]bool{pairA: true, pairB: true})
	if pairC, _ := allocate(t, e, uuid.New()); pairC != pairB+1 {
		t.Errorf("a new key got pair %d, which a record names", pairC)
	}
	raw, err := os.ReadFile(path)
	must0(t, err)
	clear(raw[pairA*pairSize : pairB*pairSize])
	must0(t, os.WriteFile(path, raw, 0o600))
	e = reopenErase(t, path, e.store)
	e.keepFor(map[int64]bool{pairA: true})
	if pairC, _ := allocate(t, e, uuid.New()); pairC == pairA {
		t.Error("an emptied pair that a record names was given away")
	}
}

func TestEraseKeyOfAnotherIsNotGiven(t *testing.T) {
	e, _ := newErase(t)
	pair, _ := allocate(t, e, uuid.New())
	for _, at := range []int64{pair, 0, -1, pair + 1, 1 << 40} {
		if _, err := e.read(at, uuid.New()); !errors.Is(err, errSlot) {
			t.Errorf("slot %d: %v", at, err)
		}
	}
}

// damage opens a changed copy of the file.
func damage(t *testing.T, e *eraseFile, path string, change func([]byte) []byte) (*eraseFile, error) {
	t.Helper()
	whole, err := os.ReadFile(path)
	must0(t, err)
	bad := filepath.Join(t.TempDir(), "erase")
	must0(t, os.WriteFile(bad, change(whole), 0o600))
	again, err := openErase(bad, e.store)
	if err == nil {
		t.Cleanup(func() { _ = again.close() })
	}
	return again, err
}

func flip(at ...int64) func([]byte) []byte {
	return func(b []byte) []byte {
		for _, i := range at {
			b[i] ^= 4
		}
		return b
	}
}

func TestOneDamagedCopyServes(t *testing.T) {
	e, path := newErase(t)
	cmk := uuid.New()
	pair, key := allocate(t, e, cmk)
	for _, at := range []int64{0, 4, 20, 51, 52, 4000, 4092, 4095} {
		for _, copy := range []int64{0, slotSize} {
			again, err := damage(t, e, path, flip(pair*pairSize+copy+at))
			if err != nil {
				t.Fatal(err)
			}
			wantEraseKey(t, again, pair, cmk, key)
			notes := 0
			must0(t, again.each(func(_ int64, owner uuid.UUID, err error) {
				if owner == cmk && err != nil {
					notes++
				}
			}))
			if notes != 1 {
				t.Errorf("byte %d: %d notes", at, notes)
			}
		}
	}
}

func must0(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestBothDamagedCopiesAreNamed(t *testing.T) {
	e, path := newErase(t)
	cmk := uuid.New()
	pair, _ := allocate(t, e, cmk)
	again, err := damage(t, e, path, flip(pair*pairSize+30, pair*pairSize+slotSize+31))
	must0(t, err)
	_, err = again.read(pair, cmk)
	if !errors.Is(err, errSlot) || !bytes.Contains([]byte(err.Error()), []byte("slot 1")) {
		t.Errorf("the error is %v", err)
	}
	if next, _ := allocate(t, again, uuid.New()); next == pair {
		t.Error("a damaged pair is used again")
	}
}

func TestEraseHeader(t *testing.T) {
	e, path := newErase(t)
	if _, err := damage(t, e, path, flip(3)); err != nil {
		t.Errorf("one copy of the header is damaged: %v", err)
	}
	if _, err := damage(t, e, path, flip(3, slotSize+3)); err == nil {
		t.Error("a header with no good copy is taken")
	}
	if _, err := openErase(path, uuid.New()); err == nil {
		t.Error("another store's erase file is taken")
	}
	for _, n := range []int{0, 7, slotSize - 1} {
		if _, err := damage(t, e, path, func(b []byte) []byte { return b[:n] }); err == nil {
			t.Errorf("%d bytes are taken", n)
		}
	}
}

func TestTornEndOfEraseFile(t *testing.T) {
	e, path := newErase(t)
	a, b := uuid.New(), uuid.New()
	pairA, keyA := allocate(t, e, a)
	pairB, _ := allocate(t, e, b)
	for _, cut := range []int64{1, slotSize - 1, slotSize, slotSize + 1, pairSize - 1} {
		raw, err := os.ReadFile(path)
		must0(t, err)
		torn := filepath.Join(t.TempDir(), "erase")
		must0(t, os.WriteFile(torn, raw[:int64(len(raw))-cut], 0o600))
		again := reopenErase(t, torn, e.store)
		wantEraseKey(t, again, pairA, a, keyA)
		if next, _ := allocate(t, again, uuid.New()); next != pairB+1 {
			t.Errorf("cut %d: the torn pair is used again", cut)
		}
	}
}

func FuzzEraseSlot(f *testing.F) {
	store, cmk := uuid.New(), uuid.New()
	b := make([]byte, slotSize)
	copy(b[slotKeyAt:], bytes.Repeat([]byte{7}, keySize))
	fillSlot(b, store, 3, cmk)
	if got, err := parseSlot(b, store, 3); err != nil || got != cmk {
		f.Fatal("no seed", err)
	}
	f.Add(b, int64(3))
	f.Add(make([]byte, slotSize), int64(1))
	f.Fuzz(func(t *testing.T, b []byte, pair int64) {
		b = append(b, make([]byte, slotSize)...)[:slotSize]
		owner, err := parseSlot(b, store, pair)
		if err != nil {
			return
		}
		again := make([]byte, slotSize)
		copy(again[slotKeyAt:], b[slotKeyAt:slotKeyEnd])
		fillSlot(again, store, pair, owner)
		if !bytes.Equal(again, b) {
			t.Error("a slot is taken that was not written so")
		}
	})
}

func FuzzRootKeyFile(f *testing.F) {
	key, err := secret.RandomWork(keySize, secret.Purpose{Kind: "test"})
	if err != nil {
		f.Fatal(err)
	}
	defer key.Destroy()
	seed := RootKeyText(uuid.New(), key)
	if _, k, err := parseRootKey(seed); err != nil || !k.Equal(key) {
		f.Fatal("no seed", err)
	}
	f.Add(seed)
	f.Add(seed[:len(seed)-1])
	f.Add([]byte("nbdcrypt-root-key 2\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		store, key, err := parseRootKey(b)
		if err != nil {
			return
		}
		defer key.Destroy()
		if !bytes.Equal(RootKeyText(store, key), b) {
			t.Errorf("%q is taken", b)
		}
	})
}

func FuzzStoreHeader(f *testing.F) {
	h := header{store: uuid.New(), rootID: [rootIDSize]byte{1, 2, 3}}
	seed, _ := h.encode()
	if got, err := parseHeader(seed); err != nil || !reflect.DeepEqual(got, h) {
		f.Fatal("no seed", err)
	}
	f.Add(seed)
	h.token, h.local = "pkcs11:token=box;object=root", make([]byte, localSize)
	held, _ := h.encode()
	if got, err := parseHeader(held); err != nil || !reflect.DeepEqual(got, h) {
		f.Fatal("no seed of a held store", err)
	}
	f.Add(held)
	f.Add([]byte("nbdcrypt-store 1\nstore "))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHeader(b)
		if err != nil {
			return
		}
		if again, err := h.encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%q is taken", b)
		}
	})
}
