package volume_test

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/pool/pooltest"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// A re-key goes on while the disk is attached, written, extended and checked; a detach ends it, and the next attach can go on.
func TestRekeyBesideEverythingElse(t *testing.T) {
	r, rng := newRig(t), rand.New(rand.NewPCG(13, 14))
	spec := kinds[0]
	spec.Size = 16 * mib
	h := r.held(spec, rng)
	_, err := r.detach("vault")
	must(t, err)
	slow := func(c pooltest.Call) error {
		if c.Op == pooltest.OpWrite {
			time.Sleep(100 * time.Microsecond)
		}
		return nil
	}
	r.faults.Hook(slow)
	var rekeyed sync.WaitGroup
	var ended error
	var kept []string
	begun := make(chan struct{}, 1)
	work := volume.Work{Progress: func(done, total int64) {
		select {
		case begun <- struct{}{}:
		default:
		}
	}}
	rekeyed.Go(func() { kept, ended = r.Rekey(t.Context(), "rekey", "default", "vault", work) })
	<-begun // through a stack of its own
	r.attach("vault")
	h.scribble(t, r.attachmentOf("vault"), rng, 50)
	_, err = r.Extend(t.Context(), "extend", "default", "vault", 17*mib)
	must(t, err)
	h.bytes = append(h.bytes, make([]byte, mib)...)
	h.scribble(t, r.attachmentOf("vault"), rng, 50)
	r.wantHeld(h, "meanwhile")
	_, err = r.detach("vault")
	must(t, err)
	rekeyed.Wait()
	if ended != nil {
		wantCode(t, ended, refusal.Busy)
		if !strings.Contains(ended.Error(), "detached") {
			t.Error(ended)
		}
	}
	r.wantHeld(h, "after the detach")
	kept, ended = r.Rekey(t.Context(), "rekey again", "default", "vault", work)
	if ended != nil || len(kept) > 0 {
		t.Error(kept, ended)
	}
	r.wantHeld(h, "at the end")
	r.wantTidy(1, 1)
}

// What is written while a merge goes on beneath an attached disk stays, and both of two disks on the merged layer hold what they held, one
// attached and one not, under keys of their own.
func TestMergeBelowTwoDisks(t *testing.T) {
	r, rng := newRig(t), rand.New(rand.NewPCG(15, 16))
	_, err := r.keys.CreateKey(t.Context(), "k", "default", keystore.KeySpec{Alias: "mine"})
	must(t, err)
	h := r.held(kinds[0], rng)
	for _, name := range []string{"s1", "s2"} {
		r.snapshot("vault", name)
		h.scribble(t, r.attachmentOf("vault"), rng, 10)
	}
	twin := &heldDisk{"twin", make([]byte, len(h.bytes))}
	r.create(volume.Spec{Project: "default", Name: "twin", From: &volume.From{Kind: volume.SnapshotKind, Ref: "s2"}})
	_, err = r.attach("twin").Device.ReadAt(twin.bytes, 0)
	must(t, err)
	_, err = r.detach("twin")
	must(t, err)
	_, _, err = r.Rewrap(t.Context(), "rewrap", "default", "twin", "", "mine")
	must(t, err)

	_, err = r.keys.Disable(t.Context(), "off", "default", "mine")
	must(t, err)
	warnings, err := r.DeleteSnapshot(t.Context(), "delete", "default", "s1", volume.Work{})
	must(t, err)
	if len(warnings) != 1 || !strings.Contains(warnings[0], "twin") || !strings.Contains(warnings[0], "Disabled") {
		t.Errorf("with a key that can't be used: %v", warnings)
	}
	r.wantHeld(h, "after what could not be merged")
	_, err = r.keys.Enable(t.Context(), "on", "default", "mine")
	must(t, err)

	done := make(chan struct{})
	go func() {
		defer close(done)
		h.scribble(t, r.attachmentOf("vault"), rng, 100)
	}()
	must(t, r.Tidy(t.Context(), volume.Work{}))
	<-done
	r.wantLayers("vault", 2)
	r.wantLayers("twin", 2)
	r.wantHeld(h, "the attached one")
	r.wantHeld(twin, "the other")
	_, err = r.keys.Disable(t.Context(), "off 2", "default", "mine")
	must(t, err)
	if _, err := r.Attach(t.Context(), "a", spec("twin")); refusal.CodeOf(err) != refusal.KeyForbids {
		t.Errorf("the merged layer opens without twin's key: %v", err)
	}
	r.wantTidy(3, 2+2+1)
}

// smallPool says that it has so much room.
type smallPool struct {
	pool.Pool
	mu   sync.Mutex
	free int64
}

func (p *smallPool) Space() (pool.Space, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return pool.Space{Total: 100 * mib, Free: p.free}, nil
}

func (p *smallPool) has(free int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = free
}

// A pool that is too full: a re-key is refused before it begins, a snapshot is deleted all the same, and what was begun goes on once there is
// room. Nobody's writes lose the last of it to such work.
func TestLongWorkLeavesRoom(t *testing.T) {
	r, rng := newRig(t), rand.New(rand.NewPCG(17, 18))
	h := r.held(kinds[0], rng)
	r.snapshot("vault", "s1")
	h.scribble(t, r.attachmentOf("vault"), rng, 5)
	_, err := r.detach("vault")
	must(t, err)
	small := &smallPool{free: 10*mib + 4096}
	r.reopen(func(p pool.Pool) pool.Pool { small.Pool = p; return small })
	_, err = r.Rekey(t.Context(), "rekey", "default", "vault", volume.Work{})
	if wantCode(t, err, refusal.Failed); !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
	r.wantLayers("vault", 2)
	small.has(9 * mib)
	warnings, err := r.DeleteSnapshot(t.Context(), "delete", "default", "s1", volume.Work{})
	must(t, err)
	if len(warnings) != 1 || !strings.Contains(warnings[0], "no space") {
		t.Errorf("%v", warnings)
	}
	r.wantHeld(h, "on a full pool")
	small.has(90 * mib)
	must(t, r.GoOn(t.Context(), "default", "vault", volume.Work{}))
	r.wantTidy(1, 1)
	_, err = r.Rekey(t.Context(), "rekey 2", "default", "vault", volume.Work{})
	must(t, err)
	r.wantHeld(h, "at the end")
}

// reopen opens the disks of a rig on a pool that is wrapped.
func (r *rig) reopen(wrap func(pool.Pool) pool.Pool) {
	r.t.Helper()
	was := r.Service
	var err error
	r.Service, err = volume.Open(r.t.Context(), volume.Config{Catalog: was.Catalog, Keys: was.Keys, Pool: wrap(was.Pool), Clock: was.Clock, Log: was.Log, Host: "here", Instance: "reopened"})
	must(r.t, err)
	r.t.Cleanup(r.Service.Close)
}

// A disk tells what it takes: what is written, what others stand on too, what is reserved.
func TestSpaceOfADisk(t *testing.T) {
	r := newRig(t)
	r.create(kinds[0])
	a := r.attach("vault")
	_, err := a.Device.WriteAt(make([]byte, 8192), 0)
	must(t, err)
	must(t, a.Device.ZeroAt(65536, 4096, true))
	want := func(when string, want volume.Space) {
		t.Helper()
		got, err := r.Space(t.Context(), "default", "vault")
		must(t, err)
		if got == nil || *got != want {
			t.Errorf("%s: %+v, want %+v", when, got, want)
		}
	}
	want("attached", volume.Space{Written: 8192, Reserved: 4096})
	r.snapshot("vault", "s1")
	want("with a snapshot", volume.Space{Written: 8192, Shared: 8192, Reserved: 4096})
	_, err = a.Device.WriteAt(make([]byte, 4096), 0)
	must(t, err)
	want("written since", volume.Space{Written: 12288, Shared: 8192, Reserved: 4096})
	_, err = r.detach("vault")
	must(t, err)
	want("detached", volume.Space{Written: 12288, Shared: 8192, Reserved: 4096})
	r.dropSnapshot("s1")
	want("without", volume.Space{Written: 8192})
}

// The limit at which a pool is said to fill up.
func TestFilling(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		total, free int64
		want        bool
	}{{100 * gib, 10 * gib, false}, {100 * gib, 10*gib - 1, true}, {10000 * gib, 64 * gib, false}, {10000 * gib, 64*gib - 1, true}, {0, 0, false}} {
		if got := volume.Filling(pool.Space{Total: c.total, Free: c.free}); got != c.want {
			t.Errorf("%d of %d: %v", c.free, c.total, got)
		}
	}
}
