package volume_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/pool/pooltest"
	"nbdcrypt/pkg/volume"
)

// killer ends a run of the daemon at the n-th commit or operation of the pool: from then on all of them fail, and nothing of them happens.
type killer struct {
	left atomic.Int64 // 0 for never
	dead atomic.Bool
	died func() // is called at that moment; it may be nil
}

var errKilled = errors.New("killed")

func (k *killer) step() error {
	if k.dead.Load() {
		return errKilled
	}
	if k.left.Load() > 0 && k.left.Add(-1) == 0 {
		k.dead.Store(true)
		if k.died != nil {
			k.died()
		}
		return errKilled
	}
	return nil
}

// killedCatalog asks before each commit.
type killedCatalog struct {
	catalog.Store
	k *killer
}

func (c killedCatalog) Update(ctx context.Context, request string, fn func(catalog.Txn) error) error {
	if err := c.k.step(); err != nil {
		return err
	}
	return c.Store.Update(ctx, request, fn)
}

// killedPool asks before volumes come and go.
type killedPool struct {
	pool.Pool
	k *killer
}

func (p killedPool) Create(ctx context.Context, name string, size int64) error {
	if err := p.k.step(); err != nil {
		return err
	}
	return p.Pool.Create(ctx, name, size)
}

func (p killedPool) Delete(ctx context.Context, name string) error {
	if err := p.k.step(); err != nil {
		return err
	}
	return p.Pool.Delete(ctx, name)
}

// mortal opens the disks of a rig for a run that is killed after some steps, 0 for never.
func (r *rig) mortal(steps int) *killer {
	r.t.Helper()
	k := &killer{}
	must(r.t, r.runUnder(k))
	k.left.Store(int64(steps))
	return k
}

// runUnder opens the disks for a run that k may kill.
func (r *rig) runUnder(k *killer) error {
	files, err := pool.OpenFiles(r.dir)
	must(r.t, err)
	faults := pooltest.NewFaults(killedPool{files, k})
	faults.Hook(func(c pooltest.Call) error {
		switch c.Op {
		case pooltest.OpWrite, pooltest.OpSync, pooltest.OpFlush, pooltest.OpDiscard, pooltest.OpReserve, pooltest.OpResize:
			return k.step()
		}
		return nil
	})
	r.faults = faults
	was := r.Service
	opened, err := volume.Open(r.t.Context(), volume.Config{Catalog: killedCatalog{r.catalog, k}, Keys: was.Keys, Pool: faults, Clock: was.Clock,
		Log: was.Log, Host: "here", Instance: fmt.Sprint(rand.Int64()), Journal: r.journal})
	if err == nil {
		r.Service = opened
		r.t.Cleanup(opened.Close)
	}
	return err
}

// kill lets go of what a run has open, as the kernel does.
func (r *rig) kill() {
	for _, a := range r.Attachments() {
		a.Abandon()
	}
}

// Rule C15: a re-key that is killed at 20 places goes on from there; the disk holds what it held, the old key is gone, and its ciphertext with it.
func TestRuleC15_RekeyIsKilledAndGoesOn(t *testing.T) {
	for _, attached := range []bool{true, false} {
		t.Run(fmt.Sprintf("attached=%v", attached), func(t *testing.T) {
			r, rng := newRig(t), rand.New(rand.NewPCG(9, 10))
			attachSpec := spec("vault")
			h := r.held(kinds[0], rng)
			before := r.layerIDs("vault")
			_, err := r.detach("vault")
			must(t, err)
			for kills := 0; kills < 20; {
				steps := 1 + rng.IntN(30)
				r.mortal(steps)
				if attached {
					if _, err := r.Attach(t.Context(), "attach", attachSpec); err != nil {
						r.kill()
						kills++
						r.restart()
						r.wantHeld(h, fmt.Sprintf("after a kill at step %d of attaching", steps))
						continue
					}
				}
				_, err := r.Rekey(t.Context(), fmt.Sprint("rekey ", steps), "default", "vault", volume.Work{})
				r.kill()
				if err != nil {
					kills++
				}
				r.restart()
				r.wantHeld(h, fmt.Sprintf("after a kill at step %d", steps))
			}
			_, err = r.Rekey(t.Context(), "rekey at last", "default", "vault", volume.Work{})
			must(t, err)
			r.wantHeld(h, "at the end")
			r.wantTidy(1, 1)
			if after := r.layerIDs("vault"); len(after) != 1 || after[0] == before[0] {
				t.Errorf("layers %v, before %v", after, before)
			}
		})
	}
}

// A snapshot's deletion that is killed at every step is ended by the next start, and by tidying up: nothing is lost, and nothing stays.
func TestSnapshotDeleteIsKilledAnywhere(t *testing.T) {
	for _, victim := range []string{"s1", "s2", "s3"} {
		t.Run(victim, func(t *testing.T) {
			// All steps take half a minute: each run tries others.
			const stride = 17
			for steps := 1 + rand.IntN(stride); ; steps += stride {
				r, rng := newRig(t), rand.New(rand.NewPCG(uint64(steps), 12))
				h := r.held(kinds[0], rng)
				for _, name := range []string{"s1", "s2", "s3"} {
					r.snapshot("vault", name)
					h.scribble(t, r.attachmentOf("vault"), rng, 3)
				}
				r.create(volume.Spec{Project: "default", Name: "twin", From: &volume.From{Kind: volume.SnapshotKind, Ref: "s2"}})
				_, err := r.detach("vault")
				must(t, err)
				k := r.mortal(steps)
				warnings, err := r.DeleteSnapshot(t.Context(), "delete", "default", victim, volume.Work{})
				r.kill()
				r.restart()
				r.wantHeld(h, fmt.Sprintf("after a kill at step %d", steps))
				must(t, r.Tidy(t.Context(), volume.Work{}))
				for _, f := range r.PendingFills() {
					must(t, r.GoOn(t.Context(), f.Project, f.ID, volume.Work{}))
				}
				r.wantHeld(h, fmt.Sprintf("after going on from step %d", steps))
				for _, name := range []string{"s1", "s2", "s3"} {
					if _, err := r.Point(t.Context(), volume.SnapshotKind, "default", name); err == nil {
						_, err := r.DeleteSnapshot(t.Context(), "delete "+name, "default", name, volume.Work{})
						must(t, err)
					}
				}
				must(t, r.Delete(t.Context(), "delete twin", "default", "twin"))
				must(t, r.Tidy(t.Context(), volume.Work{}))
				r.wantHeld(h, fmt.Sprintf("without snapshots, from step %d", steps))
				r.wantTidy(1, 1)
				if t.Failed() {
					t.Fatalf("killed at step %d: %v %v", steps, warnings, err)
				}
				if !k.dead.Load() {
					break
				}
			}
		})
	}
}
