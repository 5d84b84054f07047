package volume_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/clock"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// key makes a CMK.
func (r *rig) key(alias string) {
	r.t.Helper()
	_, err := r.keys.CreateKey(r.t.Context(), "key "+alias, "default", keystore.KeySpec{Alias: alias})
	must(r.t, err)
}

// ciphertext is what the segment files of a disk hold.
func (r *rig) ciphertext(d volume.Disk) (all []byte) {
	r.t.Helper()
	for _, l := range d.Layers {
		for _, path := range l.Segments {
			b, err := os.ReadFile(path)
			must(r.t, err)
			all = append(all, b...)
		}
	}
	return all
}

// Rule C5: while a load runs the disk changes its key many times, and not a byte of ciphertext changes; what was its key is not needed then.
func TestRuleC5_RewrapWhileAttached(t *testing.T) {
	r := newRig(t)
	r.key("a")
	r.key("b")
	d := r.create(secretDisk)
	a := r.attach("vault")
	fixed := bytes.Repeat([]byte("known plaintext "), 4096)
	_, err := a.Device.WriteAt(fixed, 2*mib)
	must(t, err)
	must(t, a.Device.Sync())
	before := r.ciphertext(d)[2*mib:]
	stop, load := make(chan struct{}), sync.WaitGroup{}
	load.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			want, got := bytes.Repeat([]byte{byte(n)}, 8192), make([]byte, 8192)
			_, errWrite := a.Device.WriteAt(want, int64(n%64)*8192)
			_, errRead := a.Device.ReadAt(got, int64(n%64)*8192)
			if errWrite != nil || errRead != nil || !bytes.Equal(got, want) {
				t.Errorf("the load: %v, %v", errWrite, errRead)
				return
			}
		}
	})
	for i := range 20 {
		to := []string{"a", "b", "a", "evs/default"}[i%4]
		if i%4 == 2 {
			_, err := r.keys.RotateKey(t.Context(), fmt.Sprint("rotate", i), "default", "a")
			must(t, err)
		}
		now, changed, err := r.Rewrap(t.Context(), fmt.Sprint("rewrap", i), "default", "vault", "", to)
		if err != nil || !changed || now.Key.Alias != to || now.Status != volume.InUse {
			t.Fatalf("to %s: %v, %+v, %v", to, changed, now.Key, err)
		}
	}
	_, changed, err := r.Rewrap(t.Context(), "again", "default", "vault", "", "")
	if err != nil || changed {
		t.Errorf("under the newest version already: %v, %v", changed, err)
	}
	close(stop)
	load.Wait()
	_, _, err = r.Rewrap(t.Context(), "last", "default", "vault", "", "b")
	must(t, err)
	must(t, a.Device.Sync())
	if !bytes.Equal(r.ciphertext(d)[2*mib:], before) {
		t.Error("ciphertext changed")
	}
	_, err = r.keys.Disable(t.Context(), "off", "default", "a")
	must(t, err)
	_, err = r.detach("vault")
	must(t, err)
	r.restart()
	got := make([]byte, len(fixed))
	_, err = r.attach("vault").Device.ReadAt(got, 2*mib)
	if err != nil || !bytes.Equal(got, fixed) {
		t.Errorf("under the new key it reads otherwise: %v", err)
	}
	if holders, err := r.keys.Uses(t.Context(), "default", "b"); err != nil || len(holders) != 1 || holders[0].ID != d.ID {
		t.Errorf("b is used by %v, %v", holders, err)
	}
}

// beforeUpdate does something right before each commit.
type beforeUpdate struct {
	catalog.Store
	do func() error
}

func (b *beforeUpdate) Update(ctx context.Context, request string, fn func(catalog.Txn) error) error {
	if err := b.do(); err != nil {
		return err
	}
	return b.Store.Update(ctx, request, fn)
}

// A re-wrap that is cut off at its commit, or overtaken there, leaves the disk as it was, and it attaches.
func TestRuleC5_RewrapIsAllOrNothing(t *testing.T) {
	r := newRig(t)
	r.key("a")
	d := r.create(secretDisk)
	whole := r.Service.Catalog
	killed := errors.New("killed")
	for what, c := range map[string]struct {
		do   func() error
		code refusal.Code
	}{
		"killed": {func() error { return killed }, refusal.Failed},
		"the key is disabled": {func() error {
			_, err := r.keys.Disable(t.Context(), "off", "default", "a")
			return err
		}, refusal.KeyForbids},
	} {
		r.Service.Catalog = &beforeUpdate{whole, c.do}
		_, _, err := r.Rewrap(t.Context(), what, "default", "vault", "", "a")
		if refusal.CodeOf(err) != c.code {
			t.Errorf("%s: %v", what, err)
		}
		r.Service.Catalog = whole
		_, err = r.keys.Enable(t.Context(), "on "+what, "default", "a")
		must(t, err)
		if now, err := r.Get(t.Context(), "default", "vault"); err != nil || now.Key.Alias != "evs/default" {
			t.Errorf("%s: it is under %v, %v", what, now.Key, err)
		}
		r.attach("vault")
		_, err = r.detach("vault")
		must(t, err)
	}
	// Somebody else is faster, with another key: the slower one is told.
	r.key("b")
	r.Service.Catalog = &beforeUpdate{whole, func() error {
		r.Service.Catalog = whole
		_, _, err := r.Rewrap(t.Context(), "faster", "default", "vault", "", "b")
		return err
	}}
	_, _, err := r.Rewrap(t.Context(), "slower", "default", "vault", "", "a")
	wantCode(t, err, refusal.Busy)
	// It is deleted meanwhile.
	r.Service.Catalog = &beforeUpdate{whole, func() error {
		r.Service.Catalog = whole
		return r.Delete(t.Context(), "delete", "default", d.ID)
	}}
	_, _, err = r.Rewrap(t.Context(), "late", "default", "vault", "", "a")
	if refusal.CodeOf(err) != refusal.NotFound || r.records("dek/") != 0 || r.records("uses/") != 0 {
		t.Errorf("deleted meanwhile: %v, %d DEKs, %d uses", err, r.records("dek/"), r.records("uses/"))
	}
}

// afterView does something right after each look at the catalog.
type afterView struct {
	catalog.Store
	do func()
}

func (a *afterView) View(ctx context.Context, fn func(catalog.Reader) error) error {
	defer a.do()
	return a.Store.View(ctx, fn)
}

// A layer that a disk loses while it is re-wrapped, as by a fill, is no damage.
func TestRuleC5_RewrapWhileLayersGo(t *testing.T) {
	r := newRig(t)
	r.key("a")
	h := keystore.Holder{Kind: volume.HolderKind, ID: r.create(secretDisk).ID}
	rec, err := r.keys.GenerateDEK(t.Context(), "default", "a", h, uuid.NewString(), 512)
	must(t, err)
	whole := r.Service.Catalog
	for views := range 3 {
		must(t, whole.Update(t.Context(), uuid.NewString(), func(t catalog.Txn) error { return keystore.PutDEK(t, rec) }))
		r.Service.Catalog = &afterView{whole, func() {
			if views--; views < 0 {
				r.Service.Catalog = whole
				must(t, whole.Update(t.Context(), "drop", func(t catalog.Txn) error { return keystore.DropDEKs(t, h, rec.Layer) }))
			}
		}}
		if _, _, err := r.Rewrap(t.Context(), uuid.NewString(), "default", "vault", "", "a"); err != nil && refusal.CodeOf(err) != refusal.Busy {
			t.Errorf("after %d views: %v", views, err)
		}
	}
}

func TestRuleC5_WhatCantBeRewrapped(t *testing.T) {
	r := newRig(t)
	r.key("a")
	plain := secretDisk
	plain.Encrypted = false
	r.create(plain)
	_, _, err := r.Rewrap(t.Context(), "r", "default", "vault", "", "a")
	wantCode(t, err, refusal.Failed)
	if !strings.Contains(err.Error(), "plain") {
		t.Error(err)
	}
	_, _, err = r.Rewrap(t.Context(), "r", "default", "nothing", "", "a")
	wantCode(t, err, refusal.NotFound)
}

// A disk that was put under another key is not taken from there by who may take it from the first.
func TestRewrapFromAKey(t *testing.T) {
	r := newRig(t)
	r.key("a")
	r.key("b")
	first := r.create(secretDisk).Key.ID
	_, _, err := r.Rewrap(t.Context(), "to a", "default", "vault", first, "a")
	must(t, err)
	_, _, err = r.Rewrap(t.Context(), "to b", "default", "vault", first, "b")
	wantCode(t, err, refusal.Busy)
	if !errors.Is(err, volume.ErrMoved) {
		t.Error(err)
	}
	if d, err := r.Get(t.Context(), "default", "vault"); err != nil || d.Key.Alias != "a" {
		t.Errorf("it is under %+v, %v", d.Key, err)
	}
}

// The key of a disk is told as it is in a daemon of another region too: there it can be attached, and nobody may think that it is lost.
func TestRuleA42_DiskInAnotherRegion(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	keys := r.keys
	var err error
	r.keys, err = keystore.Open(t.Context(), keystore.Config{Catalog: r.catalog, Root: r.root, Region: "there", Clock: clock.System{}})
	must(t, err)
	must(t, keys.Close())
	t.Cleanup(func() { _ = r.keys.Close() })
	r.restart()
	_, err = r.Attach(t.Context(), "attach", spec("vault"))
	wantCode(t, err, refusal.Denied)
	d, err := r.Get(t.Context(), "default", "vault")
	if err != nil || d.Key.State != keystore.Enabled || d.Key.Alias != "evs/default" {
		t.Errorf("its key is %+v, %v", d.Key, err)
	}
	_, _, err = r.keys.Grant(t.Context(), "grant there", "default", "root")
	must(t, err)
	r.attach("vault")
	asks := leave("vault")
	asks.Stranding = func(key keystore.Info) error { return fmt.Errorf("it would be stranded: its key is %+v", key) }
	_, err = r.Detach(t.Context(), "detach", asks)
	must(t, err)
}
