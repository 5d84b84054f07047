package keystore_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// wrapMaterial does what an owner of key material does with the wrapping key.
func wrapMaterial(t *testing.T, public, plain []byte) []byte {
	t.Helper()
	block, _ := pem.Decode(public)
	if block == nil {
		t.Fatalf("%q is no PEM", public)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	must(t, err)
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, key.(*rsa.PublicKey), plain, nil)
	must(t, err)
	return wrapped
}

// imported makes a key for imported material, and parameters for it.
func (l *lab) imported(alias string) (keystore.Info, keystore.ImportParameters) {
	l.t.Helper()
	key, err := l.CreateKey(l.ctx(), l.request(), "default", keystore.KeySpec{Alias: alias, Origin: keystore.OriginImported})
	must(l.t, err)
	return key, l.prepare(alias)
}

func (l *lab) prepare(alias string) keystore.ImportParameters {
	l.t.Helper()
	keystore.ReuseWrappingKeys()
	p, _, err := l.PrepareImport(l.ctx(), "default", alias)
	must(l.t, err)
	return p
}

func (l *lab) importInto(alias string, token, wrapped []byte, expires *time.Time) (keystore.Info, error) {
	return l.ImportMaterial(l.ctx(), l.request(), "default", alias, keystore.Material{Token: token, Wrapped: wrapped, Expires: expires})
}

var (
	theirBytes = bytes.Repeat([]byte("0123456789abcdef"), 2)
	otherBytes = bytes.Repeat([]byte("fedcba9876543210"), 2)
)

// Material comes in, is used, is deleted at once, and only the same bytes make what is under the key open again.
func TestRuleB7_ImportDeleteImport(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	key, p := l.imported("theirs")
	if key.State != keystore.PendingImport || key.Version != 0 {
		t.Errorf("it begins as %+v", key)
	}
	_, err := l.GenerateDEK(l.ctx(), "default", "theirs", disk1, "l1", 512)
	wantCode(t, err, refusal.KeyForbids)
	wrapped := wrapMaterial(t, p.WrappingKey, theirBytes)
	info, err := l.importInto("theirs", p.Token, wrapped, nil)
	if err != nil || info.State != keystore.Enabled || info.Version != 1 || info.Origin != keystore.OriginImported {
		t.Fatalf("imported, it is %+v, %v", info, err)
	}
	l.dek("default", "theirs", disk1, "l1")
	before, err := l.unwrap("default", disk1, "l1")
	must(t, err)
	if found := contains(t, l.dir, theirBytes); len(found) > 0 {
		t.Errorf("the material stands in %v", found)
	}
	erased := l.eraseKeys()
	for range 2 { // as often as one likes
		info, err = l.DeleteMaterial(l.ctx(), l.request(), "default", "theirs")
		if err != nil || info.State != keystore.PendingImport || info.Version != 0 {
			t.Fatalf("deleted, it is %+v, %v", info, err)
		}
		_, err = l.unwrap("default", disk1, "l1")
		wantCode(t, err, refusal.KeyForbids)
		_, err = l.DeleteMaterial(l.ctx(), l.request(), "default", "theirs")
		wantCode(t, err, refusal.KeyForbids)
		_, err = l.importInto("theirs", p.Token, wrapMaterial(t, p.WrappingKey, otherBytes), nil)
		if r := wantCode(t, err, refusal.KeyForbids); !strings.Contains(r.Message, "only the same") {
			t.Errorf("other bytes: %q", r.Message)
		}
		l.wantProblems()
		l.reopen()
		_, err = l.importInto("theirs", p.Token, wrapped, nil)
		must(t, err)
		if after, err := l.unwrap("default", disk1, "l1"); err != nil || !bytes.Equal(after, before) {
			t.Errorf("imported again: %v", err)
		}
	}
	if now := l.eraseKeys(); len(now) != len(erased) || bytes.Equal(now[len(now)-1], erased[len(erased)-1]) {
		t.Error("the erase key is the one of before")
	}
	l.wantProblems()
}

// eraseKeys are the erase keys that the erase file holds.
func (l *lab) eraseKeys() (keys [][]byte) {
	l.t.Helper()
	b, err := os.ReadFile(l.dir + "/" + keystore.EraseFile)
	must(l.t, err)
	for at := 8192; at < len(b); at += 8192 {
		if string(b[at:at+4]) == "SLOT" {
			keys = append(keys, b[at+20:at+52])
		}
	}
	return keys
}

// Every way in which an import can be wrong has its own words.
func TestRuleB7_WhatIsRefused(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	l.create("default", "made")
	_, old := l.imported("theirs")
	p := l.prepare("theirs")
	_, other := l.imported("second")
	stranger := newLab(t)
	stranger.grant("default")
	_, foreign := stranger.imported("theirs")
	good := wrapMaterial(t, p.WrappingKey, theirBytes)
	altered := bytes.Replace(p.Token, []byte("private A"), []byte("private B"), 1)
	refused := func(what, alias string, token, wrapped []byte, code refusal.Code, says string) {
		t.Helper()
		_, err := l.importInto(alias, token, wrapped, nil)
		if r := refusal.From(err); r == nil || r.Code != code || !strings.Contains(r.Message, says) || r.Hint == "" {
			t.Errorf("%s: %+v", what, r)
		}
	}
	refused("wrong length", "theirs", p.Token, wrapMaterial(t, p.WrappingKey, theirBytes[1:]), refusal.Usage, "31 bytes")
	refused("wrapped for the token before", "theirs", p.Token, wrapMaterial(t, old.WrappingKey, theirBytes), refusal.Usage, "not wrapped with this")
	refused("not wrapped", "theirs", p.Token, theirBytes, refusal.Usage, "not wrapped with this")
	refused("the token before", "theirs", old.Token, good, refusal.KeyForbids, "not the newest")
	refused("another key's token", "theirs", other.Token, good, refusal.Usage, "is for key")
	refused("another store's token", "theirs", foreign.Token, good, refusal.Usage, "of store "+stranger.root.Store.String())
	refused("no token", "theirs", nil, good, refusal.Usage, "damaged")
	refused("an altered token", "theirs", altered, good, refusal.Usage, "damaged")
	refused("a generated key", "made", p.Token, good, refusal.KeyForbids, "made here")
	refused("a default key", "evs/default", p.Token, good, refusal.KeyForbids, "default key")
	refused("no key", "none", p.Token, good, refusal.NotFound, "no key")
	past := l.clock.Now()
	_, err := l.importInto("theirs", p.Token, good, &past)
	wantCode(t, err, refusal.Usage)
	for _, alias := range []string{"made", "evs/default"} {
		_, _, err := l.PrepareImport(l.ctx(), "default", alias)
		wantCode(t, err, refusal.KeyForbids)
		_, err = l.DeleteMaterial(l.ctx(), l.request(), "default", alias)
		wantCode(t, err, refusal.KeyForbids)
	}
	l.clock.Advance(24 * time.Hour)
	refused("a token of yesterday", "theirs", p.Token, good, refusal.KeyForbids, "expired")
	l.clock.Advance(-time.Second)
	if _, err := l.importInto("theirs", p.Token, good, nil); err != nil {
		t.Errorf("positive control: %v", err)
	}
	l.wantProblems()
}

func TestRuleB7_MaterialExpires(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	_, p := l.imported("theirs")
	wrapped := wrapMaterial(t, p.WrappingKey, theirBytes)
	day := func(n int) *time.Time { at := l.clock.Now().Add(time.Duration(n) * 24 * time.Hour); return &at }
	_, err := l.importInto("theirs", p.Token, wrapped, day(2))
	must(t, err)
	l.dek("default", "theirs", disk1, "l1")
	// The same bytes again move the date, and nothing else.
	info, err := l.importInto("theirs", p.Token, wrapped, day(3))
	if err != nil || info.Version != 1 || !info.Expires.Equal(*day(3)) || len(l.eraseKeys()) != 2 {
		t.Errorf("imported again, it is %+v, %v", info, err)
	}
	l.clock.Advance(72*time.Hour - time.Second)
	if due := l.due(); len(due) != 0 {
		t.Errorf("too early, due is %+v", due)
	}
	_, err = l.ExpireDue(l.ctx(), l.request(), l.Due(*day(1))[0])
	wantCode(t, err, refusal.KeyForbids)
	l.clock.Advance(time.Second)
	due := l.due()
	if len(due) != 1 || due[0].Kind != keystore.DueExpiry {
		t.Fatalf("due is %+v", due)
	}
	info, err = l.ExpireDue(l.ctx(), l.request(), due[0])
	if err != nil || info.State != keystore.PendingImport || len(l.eraseKeys()) != 1 || len(l.due()) != 0 {
		t.Errorf("expired, it is %+v, %v", info, err)
	}
	// A key that is to be deleted loses its material at its time too, and is still to be deleted.
	p = l.prepare("theirs")
	_, err = l.importInto("theirs", p.Token, wrapMaterial(t, p.WrappingKey, theirBytes), day(1))
	must(t, err)
	_, err = l.ScheduleDeletion(l.ctx(), l.request(), "default", "theirs", 7)
	must(t, err)
	l.clock.Advance(24 * time.Hour)
	info, err = l.ExpireDue(l.ctx(), l.request(), l.due()[0])
	if err != nil || info.State != keystore.PendingDeletion || len(l.eraseKeys()) != 1 {
		t.Errorf("expired while it is to be deleted, it is %+v, %v", info, err)
	}
	info, err = l.CancelDeletion(l.ctx(), l.request(), "default", "theirs", true)
	if err != nil || info.State != keystore.PendingImport {
		t.Errorf("kept, it is %+v, %v", info, err)
	}
}

// stopping lets some commits pass and then fails every other, as a process that is killed there would.
type stopping struct {
	catalog.Store
	left *int
}

var errKilled = errors.New("killed")

func (s stopping) Update(ctx context.Context, request string, fn func(catalog.Txn) error) error {
	if *s.left--; *s.left < 0 {
		return errKilled
	}
	return s.Store.Update(ctx, request, fn)
}

// Deleting is cut off after each of its commits: the material is gone for everybody after the first, and a start finishes it.
func TestRuleB7_DeletionOfMaterialIsFinished(t *testing.T) {
	l := newLab(t)
	left := 1 << 30
	l.wrap = func(s catalog.Store) catalog.Store { return stopping{s, &left} }
	l.reopen()
	l.grant("default")
	_, p := l.imported("theirs")
	wrapped := wrapMaterial(t, p.WrappingKey, theirBytes)
	for commits, erased := range []bool{false, true} {
		_, err := l.importInto("theirs", p.Token, wrapped, nil)
		must(t, err)
		left = commits
		if _, err := l.DeleteMaterial(l.ctx(), l.request(), "default", "theirs"); !errors.Is(err, errKilled) {
			t.Fatalf("after %d commits: %v", commits, err)
		}
		left = 1 << 30
		l.reopen()
		want := map[bool]keystore.State{false: keystore.Enabled, true: keystore.PendingImport}[erased]
		if info, err := l.Key(l.ctx(), "default", "theirs"); err != nil || info.State != want || len(l.eraseKeys()) != 1+map[bool]int{false: 1}[erased] {
			t.Errorf("after %d commits it is %+v, %v", commits, info, err)
		}
		l.wantProblems()
	}
}

// A commit that fails for certain leaves no erase key behind.
func TestRuleB7_FailedImportLeavesNothing(t *testing.T) {
	l := newLab(t)
	left := 1 << 30
	l.wrap = func(s catalog.Store) catalog.Store { return stopping{s, &left} }
	l.reopen()
	l.grant("default")
	_, p := l.imported("theirs")
	left = 0
	if _, err := l.importInto("theirs", p.Token, wrapMaterial(t, p.WrappingKey, theirBytes), nil); !errors.Is(err, errKilled) {
		t.Fatalf("%v", err)
	}
	left = 1 << 30
	if n := len(l.eraseKeys()); n != 1 {
		t.Errorf("%d erase keys", n)
	}
	l.wantProblems()
}

// In a store that a token holds, the token's wrap is around what comes in and around the wrapping key; it sees neither.
func TestRuleB7_ImportIntoAHeldStore(t *testing.T) {
	l, box := heldLab(t)
	l.grant("default")
	_, p := l.imported("theirs")
	wrapped := wrapMaterial(t, p.WrappingKey, theirBytes)
	box.Away = true
	_, err := l.importInto("theirs", p.Token, wrapped, nil)
	wantCode(t, err, refusal.Locked)
	box.Away = false
	_, err = l.importInto("theirs", p.Token, wrapped, nil)
	must(t, err)
	l.dek("default", "theirs", disk1, "l1")
	l.rotate(l.create("default", "mine").ID)
	if _, err := l.unwrap("default", disk1, "l1"); err != nil {
		t.Error(err)
	}
	for _, saw := range box.Saw {
		if bytes.Contains(saw, theirBytes) {
			t.Errorf("the token saw the material in %x", saw)
		}
	}
	l.wantProblems()
}
