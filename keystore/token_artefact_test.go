package keystore_test

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

const (
	// heldArtefacts is a store that a token holds, whose key is 01 and 31 zeros.
	heldArtefacts = "../testdata/keystore/v1-held"
	// tokenSlot is a slot of the other artefacts' store; the token's key is 03 and 31 zeros.
	tokenSlot = "slot-pkcs11"
)

// heldState is a state directory made of the artefacts, in which one file is spoilt.
func heldState(t *testing.T, spoilt string, spoil func([]byte) []byte) *lab {
	t.Helper()
	l, box := &lab{t: t, dir: filepath.Join(t.TempDir(), "state"), keyFile: tokenURI, region: "here"}, &keystore.FakeToken{Keys: map[string]byte{"root": 1}}
	t.Cleanup(box.Plug())
	mkdir(t, l.dir)
	for _, name := range []string{"store", keystore.EraseFile, stream} {
		b := readFile(t, filepath.Join(heldArtefacts, name))
		if name == spoilt {
			b = spoil(b)
		}
		writeFile(t, filepath.Join(l.dir, name), b)
	}
	return l
}

// openHeld opens it and returns the DEK that it holds.
func (l *lab) openHeld() (dek string, err error) {
	root, err := keystore.OpenRoot(l.keyFile, l.dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	raw := catalog.Memory()
	must(l.t, raw.Import(l.ctx(), bytes.NewReader(readFile(l.t, filepath.Join(l.dir, stream)))))
	if l.Store, err = keystore.Open(l.ctx(), keystore.Config{Catalog: keystore.Seal(raw, root), Root: root, Region: l.region, Clock: l.clock}); err != nil {
		return "", err
	}
	key, err := l.unwrap("default", disk1, "layer")
	must(l.t, l.Store.Close())
	return hex.EncodeToString(key), err
}

func TestHeldArtefactsOpen(t *testing.T) {
	if *update {
		writeHeld(t)
	}
	want := strings.TrimSpace(string(readFile(t, filepath.Join(heldArtefacts, "expected"))))
	got, err := heldState(t, "", nil).openHeld()
	if err != nil || got != want || len(want) != 2*keystore.DEKSize {
		t.Errorf("the artefacts hold %q, want %q: %v", got, want, err)
	}
	whole := readFile(t, filepath.Join(heldArtefacts, "store"))
	for i := range whole {
		if _, err := heldState(t, "store", func(b []byte) []byte { b[i] ^= 1; return b }).openHeld(); refusal.CodeOf(err) != refusal.Damaged {
			t.Errorf("with byte %d of the header flipped: %v", i, err)
		}
	}
	_, err = heldState(t, keystore.EraseFile, func(b []byte) []byte { clear(b[8192:]); return b }).openHeld()
	wantCode(t, err, refusal.Damaged)
}

func TestTokenSlotArtefactOpens(t *testing.T) {
	defer (&keystore.FakeToken{Keys: map[string]byte{"root": 3}}).Plug()()
	if *update {
		writeTokenSlot(t)
	}
	dir, keyFile := state(t)
	must(t, os.Remove(keyFile))
	b := readFile(t, filepath.Join(artefacts, tokenSlot))
	_, id, _ := strings.Cut(string(b), "\nslot ")
	writeFile(t, filepath.Join(dir, keystore.SlotsDir, id[:36]), b)
	root, err := keystore.OpenRoot(keyFile, dir)
	must(t, err)
	defer root.Close()
	if root.Locked() {
		t.Errorf("it does not open: %q", root.Failed)
	}
}

// writeHeld writes the artefacts that are missing.
func writeHeld(t *testing.T) {
	if _, err := os.Stat(heldArtefacts); err == nil {
		return
	}
	l, _ := heldLab(t)
	l.grant("default")
	l.dek("default", "", disk1, "layer")
	dek, err := l.unwrap("default", disk1, "layer")
	must(t, err)
	var export bytes.Buffer
	must(t, l.raw.Export(l.ctx(), &export))
	must(t, os.MkdirAll(heldArtefacts, 0o755))
	for name, b := range map[string][]byte{"store": readFile(t, filepath.Join(l.dir, "store")), keystore.EraseFile: readFile(t, filepath.Join(l.dir, keystore.EraseFile)),
		stream: export.Bytes(), "expected": []byte(hex.EncodeToString(dek) + "\n")} {
		must(t, os.WriteFile(filepath.Join(heldArtefacts, name), b, 0o644))
	}
}

func writeTokenSlot(t *testing.T) {
	if _, err := os.Stat(filepath.Join(artefacts, tokenSlot)); err == nil {
		return
	}
	dir, keyFile := state(t)
	root, err := keystore.OpenRoot(keyFile, dir)
	must(t, err)
	defer root.Close()
	slot, err := root.AddToken(t.Context(), "box", tokenURI)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(artefacts, tokenSlot), readFile(t, filepath.Join(dir, keystore.SlotsDir, slot.ID)), 0o644))
}
