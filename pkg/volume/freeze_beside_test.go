package volume_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/volume"
)

// cutCatalog fails requests that begin so, as long as they are named.
type cutCatalog struct {
	catalog.Store
	cut string
}

func (c *cutCatalog) Update(ctx context.Context, request string, fn func(catalog.Txn) error) error {
	if c.cut != "" && strings.HasPrefix(request, c.cut) {
		return errors.New("cut off")
	}
	return c.Store.Update(ctx, request, fn)
}

// beforeCreate does something once, right before a volume is made.
type beforeCreate struct {
	pool.Pool
	do func()
}

func (b *beforeCreate) Create(ctx context.Context, name string, size int64) error {
	if do := b.do; do != nil {
		b.do = nil
		do()
	}
	return b.Pool.Create(ctx, name, size)
}

// A merge that has its new layer in its place moves what stands on the old one there, beside whatever else is done: a snapshot that is being
// made meanwhile does not put its disk back on the layer that goes.
func TestFreezeWhileAMergeMoves(t *testing.T) {
	for _, attached := range []bool{true, false} {
		r := newRig(t)
		rng := rand.New(rand.NewPCG(7, 1))
		h := r.held(volume.Spec{Project: "default", Name: "vault", Size: mib, SectorSize: 512, Encrypted: true}, rng)
		for _, name := range []string{"a", "b"} {
			r.snapshot("vault", name)
			h.scribble(t, r.attachmentOf("vault"), rng, 3)
		}
		if !attached {
			_, err := r.detach("vault")
			must(t, err)
		}
		cut := &cutCatalog{r.Service.Catalog, "merge-move-"}
		r.Service.Catalog = cut
		warnings, err := r.DeleteSnapshot(t.Context(), "delete a", "default", "a", volume.Work{})
		if err != nil || len(warnings) != 1 || r.records("merge/") != 1 {
			t.Fatalf("cut off: %q, %v, %d merges", warnings, err, r.records("merge/"))
		}
		cut.cut = ""
		r.Service.Pool = &beforeCreate{r.Service.Pool, func() { must(t, r.Tidy(t.Context(), volume.Work{})) }}
		r.snapshot("vault", "c")
		if r.records("merge/") != 0 {
			t.Fatal("the merge was to end before the snapshot was made")
		}
		r.wantHeld(h, "after a snapshot beside a merge")
		if _, found := r.checks(); len(found) != 0 {
			t.Errorf("attached %v: %q", attached, found)
		}
		if attached {
			_, err := r.detach("vault")
			must(t, err)
		}
		r.restart()
		r.wantHeld(h, "after a restart")
		r.wantTidy(3, 3+2+1)
	}
}

// beforeRequest does something once, right before a request is committed.
type beforeRequest struct {
	catalog.Store
	request string
	do      func()
}

func (b *beforeRequest) Update(ctx context.Context, request string, fn func(catalog.Txn) error) error {
	if do := b.do; do != nil && request == b.request {
		b.do = nil
		do()
	}
	return b.Store.Update(ctx, request, fn)
}

// Layers below an attached disk may be merged while what was pushed down is sealed: the snapshot is there all the same.
func TestSnapshotWhileLayersBelowAreMerged(t *testing.T) {
	r := newRig(t)
	rng := rand.New(rand.NewPCG(7, 2))
	h := r.held(volume.Spec{Project: "default", Name: "vault", Size: mib, SectorSize: 512, Encrypted: true}, rng)
	for _, name := range []string{"a", "b"} {
		r.snapshot("vault", name)
		h.scribble(t, r.attachmentOf("vault"), rng, 3)
	}
	before := &beforeRequest{r.Service.Catalog, "snapshot c", func() { r.dropSnapshot("a") }}
	r.Service.Catalog = before
	r.snapshot("vault", "c")
	if before.do != nil {
		t.Fatal("nothing was merged meanwhile")
	}
	r.wantHeld(h, "after a snapshot beside a merge")
	if _, found := r.checks(); len(found) != 0 {
		t.Errorf("%q", found)
	}
}

// Who makes something of a point beside a merge that moves it finds it where it is then.
func TestDisksOfAPointThatAMergeMoves(t *testing.T) {
	for views := range 4 {
		r := newRig(t)
		rng := rand.New(rand.NewPCG(7, 3))
		h := r.held(volume.Spec{Project: "default", Name: "vault", Size: mib, SectorSize: 512, Encrypted: true}, rng)
		for _, name := range []string{"a", "b"} {
			r.snapshot("vault", name)
			h.scribble(t, r.attachmentOf("vault"), rng, 3)
		}
		whole := r.Service.Catalog
		r.Service.Catalog = &cutCatalog{whole, "merge-move-"}
		_, err := r.DeleteSnapshot(t.Context(), "delete a", "default", "a", volume.Work{})
		must(t, err)
		left := views
		r.Service.Catalog = &afterView{whole, func() {
			if left--; left < 0 {
				r.Service.Catalog = whole
				must(t, r.Tidy(t.Context(), volume.Work{}))
			}
		}}
		if _, err := r.Create(t.Context(), "clone", volume.Spec{Project: "default", Name: "clone", From: &volume.From{Kind: volume.SnapshotKind, Ref: "b"}}); err != nil {
			t.Errorf("after %d views: %v", views, err)
		}
		r.Service.Catalog = whole
		if _, found := r.checks(); len(found) != 0 {
			t.Errorf("after %d views: %q", views, found)
		}
		r.attach("clone")
	}
}
