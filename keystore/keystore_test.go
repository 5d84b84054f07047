package keystore_test

import (
	"context"
	"fmt"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/clock"
	"nbdcrypt/pkg/refusal"
)

// lab is a key store on a state directory of its own, which can be closed and opened again.
type lab struct {
	*keystore.Store
	t       *testing.T
	dir     string
	keyFile string
	region  string
	pass    string // what opens the store where the key file does not
	wrap    func(catalog.Store) catalog.Store
	root    *keystore.Root
	raw     catalog.Store
	sealed  catalog.Store
	clock   *clock.Fake
	n       int
}

func newLab(t *testing.T) *lab {
	t.Helper()
	base := t.TempDir()
	l := &lab{t: t, dir: filepath.Join(base, "state"), keyFile: filepath.Join(base, "config", "root.key"), region: "here",
		clock: clock.NewFake(time.Unix(1e9, 0))}
	mkdir(t, l.dir)
	l.open()
	t.Cleanup(l.close)
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (l *lab) open() {
	l.t.Helper()
	must(l.t, l.tryOpen())
}

func (l *lab) tryOpen() (err error) {
	if l.root, err = keystore.OpenRoot(l.keyFile, l.dir); err != nil {
		return err
	}
	if l.root.Locked() {
		if _, err := l.root.UnlockPassphrase(l.ctx(), passphrase(l.t, l.pass)); err != nil {
			l.root.Close()
			return err
		}
	}
	l.raw, err = catalog.Open(filepath.Join(l.dir, keystore.CatalogDir), catalog.Options{
		Create: l.root.First, Check: keystore.CheckSealed(l.root),
	})
	if err != nil {
		l.root.Close()
		return err
	}
	l.sealed = keystore.Seal(l.raw, l.root)
	if l.wrap != nil {
		l.sealed = l.wrap(l.sealed)
	}
	l.Store, err = keystore.Open(l.ctx(), keystore.Config{
		Catalog: l.sealed, Root: l.root, Region: l.region, Clock: l.clock,
		Administrators: func(string) []string { return []string{"root", "alice"} },
	})
	if err != nil {
		_ = l.raw.Close()
		l.root.Close()
	}
	return err
}

func (l *lab) close() {
	if l.Store == nil {
		return
	}
	must(l.t, l.Store.Close())
	must(l.t, l.raw.Close())
	l.root.Close()
	l.Store = nil
}

func (l *lab) reopen() {
	l.t.Helper()
	l.close()
	l.open()
}

func (l *lab) ctx() context.Context { return l.t.Context() }

func (l *lab) request() string {
	l.n++
	return fmt.Sprintf("%s-%d", l.t.Name(), l.n)
}

func (l *lab) grant(project string) keystore.Info {
	l.t.Helper()
	_, key, err := l.Grant(l.ctx(), l.request(), project, "root")
	must(l.t, err)
	return key
}

func (l *lab) create(project, alias string) keystore.Info {
	l.t.Helper()
	key, err := l.CreateKey(l.ctx(), l.request(), project, keystore.KeySpec{Alias: alias})
	must(l.t, err)
	return key
}

// dek makes a DEK and commits it.
func (l *lab) dek(project, key string, h keystore.Holder, layer string) keystore.Record {
	l.t.Helper()
	rec, err := l.GenerateDEK(l.ctx(), project, key, h, layer, 512)
	must(l.t, err)
	l.put(rec)
	return rec
}

func (l *lab) put(rec keystore.Record) {
	l.t.Helper()
	must(l.t, l.sealed.Update(l.ctx(), l.request(), func(t catalog.Txn) error { return keystore.PutDEK(t, rec) }))
}

func (l *lab) unwrap(project string, h keystore.Holder, layer string) ([]byte, error) {
	l.t.Helper()
	dek, _, err := l.UnwrapDEK(l.ctx(), project, h, layer, 512)
	if err != nil {
		return nil, err
	}
	defer dek.Destroy()
	return append([]byte{}, dek.Bytes()...), nil
}

func wantCode(t *testing.T, err error, code refusal.Code) *refusal.Error {
	t.Helper()
	if got := refusal.CodeOf(err); got != code {
		t.Fatalf("code %d (%v), want %d", got, err, code)
	}
	r := refusal.From(err)
	if r != nil && r.Hint == "" {
		t.Errorf("%q has no hint", r.Message)
	}
	return r
}

var disk1 = keystore.Holder{Kind: "disk", ID: "d1"}

func TestMainJob(t *testing.T) {
	l := newLab(t)
	if l.root.First || !l.root.Made {
		t.Errorf("after the first start: %+v", l.root)
	}
	l.grant("default")
	key := l.create("default", "mine")
	l.dek("default", "mine", disk1, "l1")
	before, err := l.unwrap("default", disk1, "l1")
	must(t, err)
	l.reopen()
	if l.root.Made || l.root.First {
		t.Errorf("the root key was made again: %+v", l.root)
	}
	after, err := l.unwrap("default", disk1, "l1")
	must(t, err)
	if string(before) != string(after) || len(after) != keystore.DEKSize {
		t.Error("the DEK opens differently after a restart")
	}
	again, err := l.Key(l.ctx(), "default", key.ID)
	must(t, err)
	if !reflect.DeepEqual(again, key) {
		t.Errorf("the key shows as %+v, was %+v", again, key)
	}
	keys, err := l.Verify(l.ctx(), func(p keystore.Problem) { t.Errorf("found %+v", p) })
	if err != nil || keys != 2 {
		t.Errorf("Verify counts %d keys, %v", keys, err)
	}
}
