package keystore_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"sync"
	"testing"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// The key that signs backups is made once, however many ask first, and stays; what it signs verifies; its seed is nowhere in the files.
func TestSigningKeyIsMadeOnce(t *testing.T) {
	l := newLab(t)
	keys := make([]ed25519.PublicKey, 4)
	var all sync.WaitGroup
	for i := range keys {
		all.Go(func() {
			var err error
			if keys[i], err = l.SigningKey(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, k := range keys {
		if !k.Equal(keys[0]) {
			t.Error("two keys were made")
		}
	}
	l.reopen()
	message := []byte("the end of a backup")
	signature, err := l.Sign(t.Context(), message)
	must(t, err)
	if !ed25519.Verify(keys[0], message, signature) {
		t.Error("the signature is of another key")
	}
	must(t, l.root.Lock())
	if _, err := l.Sign(t.Context(), message); err != nil {
		t.Errorf("locked: %v", err)
	}
}

// The seed opens only as that of the public key beside it: nobody who can put records together gets a signature under a key of his.
func TestSigningKeyIsBoundToItsPublicHalf(t *testing.T) {
	l := newLab(t)
	_, err := l.SigningKey(t.Context())
	must(t, err)
	for name, change := range map[string]func(r map[string]any){
		"another public key": func(r map[string]any) { r["public"] = bytes.Repeat([]byte{1}, 32) },
		"a short one":        func(r map[string]any) { r["public"] = []byte{1} },
		"a flipped seed":     func(r map[string]any) { r["seed"] = bytes.Repeat([]byte{1}, 62) },
		"a later version":    func(r map[string]any) { r["v"] = 2 },
		"a new field":        func(r map[string]any) { r["more"] = 1 },
	} {
		was := []byte(nil)
		must(t, l.sealed.Update(t.Context(), l.request(), func(txn catalog.Txn) error {
			b, err := txn.Get("backup-signing")
			must(t, err)
			was = b
			var r map[string]any
			must(t, json.Unmarshal(b, &r))
			change(r)
			text, err := json.Marshal(r)
			must(t, err)
			return txn.Put("backup-signing", text)
		}))
		_, err := l.Sign(t.Context(), []byte("m"))
		if refusal.CodeOf(err) != refusal.Damaged {
			t.Errorf("%s: %v", name, err)
		}
		must(t, l.sealed.Update(t.Context(), l.request(), func(txn catalog.Txn) error { return txn.Put("backup-signing", was) }))
	}
}

// A DEK's record leaves and comes back; it counts for its own holder, layer and project alone.
func TestCarriedDEKComesBack(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	l.create("default", "a")
	h := keystore.Holder{Kind: "backup", ID: "b1"}
	l.dek("default", "a", h, "b1")
	dek, err := l.unwrap("default", h, "b1")
	must(t, err)
	text, err := l.CarryDEK(t.Context(), h, "b1")
	must(t, err)
	l.drop(h, "b1")
	if _, err := l.CarryDEK(t.Context(), h, "b1"); err == nil {
		t.Error("what is dropped can be carried")
	}
	rec, err := keystore.CarriedDEK(text, "default", h, "b1")
	must(t, err)
	must(t, l.sealed.Update(t.Context(), l.request(), func(txn catalog.Txn) error { return keystore.PutDEK(txn, rec) }))
	if again, err := l.unwrap("default", h, "b1"); err != nil || !bytes.Equal(again, dek) {
		t.Errorf("back again: %v", err)
	}
	for name, try := range map[string]func() error{
		"another holder":  func() error { _, err := keystore.CarriedDEK(text, "default", disk1, "b1"); return err },
		"another layer":   func() error { _, err := keystore.CarriedDEK(text, "default", h, "b2"); return err },
		"another project": func() error { _, err := keystore.CarriedDEK(text, "shop", h, "b1"); return err },
		"no record":       func() error { _, err := keystore.CarriedDEK([]byte("{}"), "default", h, "b1"); return err },
		"a path":          func() error { _, err := keystore.CarriedDEK(text, "default", h, "b1/../x"); return err },
	} {
		if err := try(); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
