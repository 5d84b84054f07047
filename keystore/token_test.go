package keystore_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/clock"
	"nbdcrypt/pkg/refusal"
)

const tokenURI = "pkcs11:token=box;object=root?module-path=/usr/lib/box.so&pin-source=file:/etc/nbdcrypt/pin"

// heldLab is a lab whose store a token holds.
func heldLab(t *testing.T) (*lab, *keystore.FakeToken) {
	t.Helper()
	box := &keystore.FakeToken{Keys: map[string]byte{}}
	t.Cleanup(box.Plug())
	l := &lab{t: t, dir: filepath.Join(t.TempDir(), "state"), keyFile: tokenURI, region: "here", clock: clock.NewFake(time.Unix(1e9, 0))}
	mkdir(t, l.dir)
	l.open()
	t.Cleanup(l.close)
	return l, box
}

// A CMK opens by the token's key, the local key and its erase key together; what the token sees tells nothing.
func TestRuleA4_TokenHoldsTheStore(t *testing.T) {
	l, box := heldLab(t)
	if !l.root.Made || l.root.Holder() != "pkcs11:token=box;object=root" {
		t.Errorf("after the first start: %+v", l.root)
	}
	l.grant("default")
	l.create("default", "mine")
	l.dek("default", "mine", disk1, "l1")
	before, err := l.unwrap("default", disk1, "l1")
	must(t, err)
	for _, saw := range box.Saw {
		if len(saw) != 62 || saw[0] != 1 || saw[1] != 0 {
			t.Errorf("the token saw %x", saw)
		}
	}
	if len(box.Saw) != 2 {
		t.Errorf("the token sealed %d CMKs", len(box.Saw))
	}
	l.reopen()
	if l.root.Made {
		t.Error("the store was made again")
	}
	after, err := l.unwrap("default", disk1, "l1")
	must(t, err)
	if !bytes.Equal(before, after) {
		t.Error("the DEK opens differently after a restart")
	}
	if _, err := os.Stat(filepath.Join(l.dir, keystore.SlotsDir)); err == nil {
		t.Error("there are slots")
	}
}

// While the token is away nothing is opened, nothing is called damaged, and the catalog can be read.
func TestTokenThatIsAway(t *testing.T) {
	l, box := heldLab(t)
	key := l.grant("default")
	l.dek("default", "", disk1, "l1")
	box.Away = true
	_, err := l.unwrap("default", disk1, "l1")
	wantWords(t, wantCode(t, err, refusal.Locked), "another building", "put it back")
	_, err = l.CreateKey(l.ctx(), l.request(), "default", keystore.KeySpec{Alias: "mine"})
	wantCode(t, err, refusal.Locked)
	if _, err := l.Key(l.ctx(), "default", key.ID); err != nil {
		t.Error(err)
	}
	if _, err := l.Verify(l.ctx(), func(p keystore.Problem) { t.Errorf("found %+v", p) }); refusal.CodeOf(err) != refusal.Locked {
		t.Errorf("Verify: %v", err)
	}
	if s := l.slots(); len(s) != 1 || s[0].ID != keystore.TokenSlot || s[0].Present || !strings.Contains(s[0].Detail, "another building") {
		t.Errorf("the slots: %+v", s)
	}
	must(t, l.root.Lock()) // a person who takes the token away may lock
	asked := box.Asked
	_, err = l.unwrap("default", disk1, "l1")
	wantWords(t, wantCode(t, err, refusal.Locked), "root unlock")
	if box.Asked != asked {
		t.Error("the token is asked while the root key is locked")
	}
	if _, err := l.root.UnlockAutomatic(l.ctx()); refusal.CodeOf(err) != refusal.Locked {
		t.Errorf("unlocked without the token: %v", err)
	}
	l.Store.Close()
	l.raw.Close()
	l.root.Close()

	// A start without it is locked, and goes on once the token is back.
	root := l.atStart()
	if !root.Locked() || len(root.Failed) != 1 || !strings.Contains(root.Failed[0], "another building") {
		t.Errorf("a start: locked %v, %q", root.Locked(), root.Failed)
	}
	box.Away = false
	if slot, err := root.UnlockAutomatic(t.Context()); err != nil || slot != keystore.TokenSlot || root.Locked() {
		t.Errorf("unlocked by %s, %v", slot, err)
	}
	l.open()
	if _, err := l.unwrap("default", disk1, "l1"); err != nil {
		t.Error(err)
	}
}

// Another key of the same name, as on a token that was made anew, is told from damage.
func TestAnotherKeyOnTheToken(t *testing.T) {
	l, box := heldLab(t)
	l.close()
	box.Keys["root"] = 7
	wantWords(t, wantCode(t, l.tryRoot(), refusal.Locked), "another one", "pkcs11:token=box;object=root", "backup")
	box.Keys["root"] = 1
	must(t, l.tryRoot())
	l.keyFile = strings.Replace(tokenURI, "object=root", "object=other", 1)
	wantCode(t, l.tryRoot(), 0) // locked: there is no such key, and it may come
	box.Keys["renamed"] = 1
	l.keyFile = strings.Replace(tokenURI, "object=root", "object=renamed", 1)
	must(t, l.tryRoot())
	l.keyFile = tokenURI
	l.open()
}

// A CMK's blob opens in its own place alone, and not without the token's wrap.
func TestRuleC3_TokenWrapIsBound(t *testing.T) {
	l, _ := heldLab(t)
	l.grant("default")
	a, b := l.create("default", "a"), l.create("default", "b")
	l.dek("default", "a", disk1, "l1")
	swap := func(change func(mine, other []byte) []byte) {
		t.Helper()
		mine, other := l.wrapped("default", a.ID), l.wrapped("default", b.ID)
		l.setWrapped("default", a.ID, change(bytes.Clone(mine), other))
		_, err := l.unwrap("default", disk1, "l1")
		wantCode(t, err, refusal.Damaged)
		l.setWrapped("default", a.ID, mine)
		if _, err := l.unwrap("default", disk1, "l1"); err != nil {
			t.Error(err)
		}
	}
	swap(func(_, other []byte) []byte { return other })
	swap(func(mine, _ []byte) []byte { return mine[:62] })
	swap(func(mine, _ []byte) []byte { mine[1] = 0; return mine })
	swap(func(mine, _ []byte) []byte { mine[0] = 2; return mine })
	swap(func(mine, _ []byte) []byte { mine[20] ^= 1; return mine })
}

func TestHeldStoreTakesNoSlots(t *testing.T) {
	l, _ := heldLab(t)
	_, err := l.root.AddPassphrase(l.ctx(), "laptop", passphrase(t, horse))
	wantWords(t, wantCode(t, err, refusal.Busy), "held by the key", "back up the token")
	_, err = l.root.AddToken(l.ctx(), "box", tokenURI)
	wantCode(t, err, refusal.Busy)
	_, err = l.root.AddKeyFile()
	wantCode(t, err, refusal.Busy)
	_, _, err = l.root.AddRecovery(l.ctx(), "kit", 1, 1)
	wantCode(t, err, refusal.Busy)
	wantCode(t, l.root.RemoveSlot(l.ctx(), keystore.TokenSlot), refusal.Busy)
	must(t, l.root.Lock())
	if slot, err := l.root.UnlockAutomatic(l.ctx()); err != nil || slot != keystore.TokenSlot {
		t.Errorf("unlocked by %q, %v", slot, err)
	}
}

// A store opens by what it was made with: neither a key file nor a token takes the other's place.
func TestHolderCanNotChange(t *testing.T) {
	l, _ := heldLab(t)
	l.close()
	held := l.keyFile
	l.keyFile = filepath.Join(filepath.Dir(l.dir), "root.key")
	wantWords(t, wantCode(t, l.tryRoot(), refusal.Locked), "held by the key pkcs11:token=box;object=root", "--root-key 'pkcs11:token=box;object=root?module-path=")
	if _, err := os.Stat(l.keyFile); err == nil {
		t.Error("a root key file was made")
	}
	l.keyFile = held
	l.open()

	other := newLab(t)
	other.close()
	file := other.keyFile
	other.keyFile = tokenURI
	wantWords(t, wantCode(t, other.tryRoot(), refusal.Locked), "root key of its own", "root slot add")
	other.keyFile = file
	other.open()
}

func TestBadURIs(t *testing.T) {
	l, _ := heldLab(t)
	l.close()
	for uri, code := range map[string]refusal.Code{
		"pkcs11:": refusal.Usage,
		"pkcs11:token=box;object=root?module-path=/m.so&pin-value=1234":                      refusal.Usage,
		"pkcs11:token=box;object=root?module-path=/m.so&pin-source=file:" + l.dir + "/a/pin": refusal.Locked,
	} {
		l.keyFile = uri
		r := wantCode(t, l.tryRoot(), code)
		if code == refusal.Locked {
			wantWords(t, r, "inside the state directory")
		}
	}
	l.keyFile = tokenURI
	l.open()
}

// A first start that was cut short goes on, or begins anew where nothing was made under it.
func TestFirstStartOfAHeldStore(t *testing.T) {
	box := &keystore.FakeToken{Keys: map[string]byte{}, Away: true}
	t.Cleanup(box.Plug())
	dir := filepath.Join(t.TempDir(), "state")
	mkdir(t, dir)
	if _, err := keystore.OpenRoot(tokenURI, dir); refusal.CodeOf(err) != refusal.Locked {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("without the token there is %v", entries)
	}
	box.Away = false
	var stores []string
	for range 2 {
		root, err := keystore.OpenRoot(tokenURI, dir)
		must(t, err)
		stores = append(stores, root.Store.String())
		if !root.First || !root.Made {
			t.Errorf("%+v", root)
		}
		root.Close()
	}
	writeFile(t, filepath.Join(dir, keystore.AuditFile), nil)
	root, err := keystore.OpenRoot(tokenURI, dir)
	must(t, err)
	defer root.Close()
	if !root.First || root.Made || root.Store.String() != stores[1] {
		t.Errorf("it goes on as %+v, after %q", root, stores)
	}
}

// A slot by a token opens the store at a start, and alone.
func TestRuleC8_TokenSlot(t *testing.T) {
	box := &keystore.FakeToken{Keys: map[string]byte{"root": 3}}
	t.Cleanup(box.Plug())
	l := newLab(t)
	slot, err := l.root.AddToken(l.ctx(), "box", tokenURI)
	must(t, err)
	if slot.Kind != "pkcs11" || !slot.Automatic || !strings.Contains(slot.Detail, "aes-gcm by pkcs11:token=box") {
		t.Errorf("the slot: %+v", slot)
	}
	key := l.grant("default")
	l.close()
	must(t, os.Rename(l.keyFile, l.keyFile+".away"))
	l.open()
	if _, err := l.Key(l.ctx(), "default", key.ID); err != nil {
		t.Error(err)
	}
	l.close()

	box.Away = true
	root := l.atStart()
	if !root.Locked() || len(root.Failed) != 1 || !strings.Contains(root.Failed[0], "another building") {
		t.Errorf("a start without the token: %v, %q", root.Locked(), root.Failed)
	}
	box.Away = false
	box.Keys["root"] = 4
	if _, err := root.UnlockAutomatic(t.Context()); refusal.CodeOf(err) != refusal.Locked || !strings.Contains(err.Error(), "another one") {
		t.Errorf("with another key: %v", err)
	}
	box.Keys["root"] = 3
	if by, err := root.UnlockAutomatic(t.Context()); err != nil || by != slot.ID {
		t.Errorf("unlocked by %s, %v", by, err)
	}
	must(t, os.Rename(l.keyFile+".away", l.keyFile))

	box.Away = true
	l.open()
	if _, err := l.root.AddToken(l.ctx(), "again", tokenURI); refusal.CodeOf(err) != refusal.Locked {
		t.Errorf("added without the token: %v", err)
	}
	if s := l.slots(); len(s) != 2 {
		t.Errorf("the slots: %+v", s)
	}
}

// wrapped is a CMK's first version as it lies in its record.
func (l *lab) wrapped(project, id string) (blob []byte) {
	l.t.Helper()
	must(l.t, l.sealed.View(l.ctx(), func(r catalog.Reader) (err error) {
		blob, err = keystore.Wrapped(r, project, id)
		return err
	}))
	return blob
}

func (l *lab) setWrapped(project, id string, blob []byte) {
	l.t.Helper()
	must(l.t, l.sealed.Update(l.ctx(), l.request(), func(t catalog.Txn) error { return keystore.SetWrapped(t, project, id, blob) }))
}
