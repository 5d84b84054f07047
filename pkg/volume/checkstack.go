package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume/layer"
)

// checking is one Check. A layer that many stand on is read once.
type checking struct {
	s           *Service
	tell        func(Problem)
	named       bool // one disk was asked for by name
	progress    func(done, total int64)
	done, total int64
	blocks      int64
	// stops are the layers that were looked at, and whether what was found keeps a stack from being opened.
	stops map[uuid.UUID]bool
}

// subject is whose stack is looked at.
type subject struct {
	holder keystore.Holder
	what   string // as findings call it
	size   int64
	sealed bool // it has a DEK of each layer
	// borrow is where a layer is open already; nil where none is.
	borrow func(uuid.UUID) (*layer.Layer, bool)
}

// disk checks a disk that is neither attached, extended nor deleted meanwhile. One that something else works on is refused where it was
// asked for by name, and else passed over, which is said.
func (k *checking) disk(ctx context.Context, d diskRecord) (opens bool, err error) {
	defer k.ends(d.Size, k.done)
	what := fmt.Sprintf("disk %s/%s", d.Project, d.Name)
	now, err := k.s.claimNow(ctx, d.Project, d.ID.String(), toCheck)
	var r *refusal.Error
	switch {
	case err == nil:
		defer k.s.release(now)
		return k.claimed(ctx, now, what)
	case k.named:
		return false, err
	case errors.As(err, &r) && r.Code == refusal.NotFound:
		return true, nil // it was deleted meanwhile
	case errors.As(err, &r) && r.Code == refusal.Busy:
		k.tell(Problem{note, what, "disk", "not checked: " + err.Error(), "check it when that is done", false})
		return true, nil
	}
	return false, err
}

// claimed tells what it finds; an error is only for what ends the whole check.
func (k *checking) claimed(ctx context.Context, d diskRecord, what string) (opens bool, err error) {
	s := k.s
	if _, half := halfWay[d.Status]; half {
		k.tell(Problem{note, what, "catalog", "it was left half-way, at " + string(d.Status), "delete it, or restart the daemon, which ends it", true})
		return false, nil
	}
	layers, err := s.stack(ctx, d)
	if err != nil {
		k.tell(Problem{damage, what, "catalog", err.Error(), restoreCatalog, true})
		return false, nil
	}
	a, opens := s.attachment(d.ID), true
	left, err := s.leftBehind(ctx, d)
	if err != nil {
		k.tell(Problem{damage, what, "catalog", err.Error(), restoreCatalog, true})
		opens = false
	} else if left.lossy() && a == nil {
		k.tell(Problem{note, what, "catalog", left.warning(), "attach it and run a file system check", false})
	}
	of := subject{holder: holder(d), what: what, size: d.Size, sealed: d.Encrypted}
	if a != nil {
		of.borrow = a.find
	}
	whole, err := k.stack(ctx, of, layers)
	return opens && whole, err
}

// stack checks the layers that something stands on, with its DEKs of them.
func (k *checking) stack(ctx context.Context, of subject, layers []layerRecord) (opens bool, err error) {
	opens = true
	for i, l := range layers {
		if of.sealed {
			if err := k.s.Keys.CheckDEK(ctx, of.holder, l.ID.String()); err != nil && k.has(ctx, of, l) {
				k.tell(Problem{damage, of.what, "layer " + l.ID.String(), err.Error(), restoreCatalog, true})
				opens = false
			}
		}
		stops, known := k.stops[l.ID]
		if !known {
			if i == 0 {
				l.Size = of.size
			}
			if stops, err = k.layer(ctx, of, l); err != nil {
				return false, err
			}
			k.stops[l.ID] = stops
		}
		opens = opens && !stops
	}
	return opens, k.leftovers(ctx, of, layers)
}

// leftovers tells of data keys that should be gone: of layers which a re-key, a rollback or a merge took away.
func (k *checking) leftovers(ctx context.Context, of subject, layers []layerRecord) error {
	return k.s.Catalog.View(ctx, func(r catalog.Reader) error {
		held, err := keystore.HeldLayers(r, of.holder)
		for _, id := range held {
			_, coming := r.Get(makingPrefix + id)
			if errors.Is(coming, catalog.ErrNotFound) && !slices.ContainsFunc(layers, func(l layerRecord) bool { return l.ID.String() == id }) {
				k.tell(Problem{note, of.what, "layer " + id, "it has the data key of this layer, and does not stand on it any more",
					"where nothing is being merged there, restart the daemon: it drops the key", false})
			}
		}
		return err
	})
}

// layer reads one layer, and tells whether what it finds keeps a stack from being opened.
func (k *checking) layer(ctx context.Context, of subject, l layerRecord) (stops bool, err error) {
	where := "layer " + l.ID.String()
	open, done, err := k.open(ctx, of, l)
	switch {
	case err != nil && !k.has(ctx, of, l):
		return false, nil // it was merged meanwhile
	case errors.Is(err, pool.ErrInUse):
		k.tell(Problem{note, of.what, where, "not checked: " + err.Error(), "detach what writes to it, or stop the other daemon that uses this pool", true})
		return true, nil
	case err != nil:
		k.tell(Problem{damage, of.what, where, err.Error(), "restore the layer's files from a backup", true})
		return true, nil
	}
	defer done()
	before := k.done
	var lost []Problem
	blocks, err := open.Check(ctx, l.Size, func(f layer.Finding) {
		p := Problem{note, of.what, where + ", " + f.Where, f.What, "nothing is lost; the next write there mends it", false}
		if f.Lost {
			p.Severity, p.Next = damage, "restore these bytes from a backup; writing them anew makes them readable again"
			lost = append(lost, p)
			return
		}
		k.tell(p)
	}, func(n int64) { k.progress(before+min(n, of.size), k.total) })
	if (err != nil || len(lost) > 0) && ctx.Err() == nil && !k.has(ctx, of, l) {
		return false, nil // it was merged while it was read, and its files are going
	}
	for _, p := range lost {
		k.tell(p)
	}
	if err != nil && ctx.Err() == nil {
		k.tell(Problem{damage, of.what, where, err.Error(), "restore the layer's files from a backup", true})
		return true, nil
	}
	k.blocks += blocks
	return false, err
}

// open gives a layer as this run has it open, or opens it for reading.
func (k *checking) open(ctx context.Context, of subject, l layerRecord) (*layer.Layer, func(), error) {
	if of.borrow != nil {
		if open, ok := of.borrow(l.ID); ok {
			return open, func() {}, nil
		}
	}
	open, err := layer.Open(ctx, k.s.Pool, l.header(), l.Size, layer.Options{ReadOnly: true})
	if err != nil {
		return nil, nil, err
	}
	return open, func() { _ = open.Close() }, nil
}

// has tells whether something still stands on a layer: merging changes stacks while they are looked at.
func (k *checking) has(ctx context.Context, of subject, l layerRecord) bool {
	var now []layerRecord
	err := k.s.Catalog.View(ctx, func(r catalog.Reader) error {
		first, err := firstOf(r, of.holder)
		if err == nil {
			now, err = k.s.layersFrom(r, first)
		}
		return err
	})
	return err != nil || slices.ContainsFunc(now, func(n layerRecord) bool { return n.ID == l.ID })
}

// ends tells that something of a size was looked at, whose turn began when that much was done.
func (k *checking) ends(size, began int64) {
	k.done = began + size
	k.progress(k.done, k.total)
}
