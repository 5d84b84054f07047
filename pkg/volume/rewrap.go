package volume

import (
	"context"
	"errors"
	"slices"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// Rewrap puts a disk under the newest version of a CMK, attached or not (rule C5): the DEK of each layer is wrapped anew, and not a byte
// of data is written. It tells whether anything had to be done. Where from names a CMK, a disk that is not under that any more stays as it
// is: ErrMoved.
func (s *Service) Rewrap(ctx context.Context, request, project, ref, from, key string) (disk Disk, changed bool, err error) {
	d, err := s.lookUp(ctx, project, ref)
	if err == nil && !d.Encrypted {
		err = refusal.New(refusal.Failed, "an encrypted disk has to be made as one, and the data copied to it", "disk %s is plain and has no key", d.Name)
	}
	if err == nil {
		err = s.mayRest(d, toRewrap)
	}
	if err == nil {
		changed, err = s.rewrap(ctx, request, diskHolding(d), from, key)
	}
	if err != nil {
		return Disk{}, false, explain(ref, err)
	}
	disk, err = s.Get(ctx, project, d.ID.String())
	return disk, changed, err
}

// RewrapPoint does so with a snapshot, an image or a backup; or with the DEK of a merge that has not ended.
func (s *Service) RewrapPoint(ctx context.Context, request, project, kind, ref, from, key string) (changed bool, err error) {
	if kind == MergeKind {
		moved := func(catalog.Txn, string) error { return nil } // no record names its key
		return s.rewrap(ctx, request, holding{keystore.Holder{Kind: kind, ID: ref}, "merge " + ref, project, from, moved}, from, key)
	}
	p, free, err := s.lookUpPoint(ctx, kind, project, ref)
	if err != nil {
		return false, err
	}
	defer free()
	changed, err = s.rewrap(ctx, request, pointHolding(p), from, key)
	return changed, explainPoint(kind, p.Name, err)
}

// ErrMoved tells that something was put under another key than it was to be taken from.
var ErrMoved error = refusal.New(refusal.Busy, "try again; who may is asked anew then", "it has another key now than a moment ago")

// holding is a holder of DEKs that is put under another key.
type holding struct {
	holder        keystore.Holder
	name, project string
	key           string
	// move has the holder's record name another key, if the holder is still what it was.
	move func(t catalog.Txn, key string) error
}

func diskHolding(was diskRecord) holding {
	return holding{holder(was), "disk " + was.Name, was.Project, was.Key, func(t catalog.Txn, key string) error {
		d, err := get(t, diskKey(was.ID), parseDisk)
		if errors.Is(err, catalog.ErrNotFound) {
			return noDisk(was.Project, was.Name)
		}
		if err != nil {
			return err
		}
		if d.Status != Available || d.Key != was.Key {
			return gone(d)
		}
		d.Key = key
		return put(t, diskKey(d.ID), d)
	}}
}

func pointHolding(was pointRecord) holding {
	return holding{was.holder(), was.Kind + " " + was.Name, was.Project, was.Key, func(t catalog.Txn, key string) error {
		p, err := get(t, was.key(), parsePoint)
		if errors.Is(err, catalog.ErrNotFound) {
			return noPoint(was.Kind, was.Project, was.Name)
		}
		if err != nil {
			return err
		}
		if p.Status != Available || p.Key != was.Key {
			return was.busy("it was changed meanwhile")
		}
		p.Key = key
		return put(t, p.key(), p)
	}}
}

// rewrap takes no claim: what it commits is refused where anything that it read has changed meanwhile, so that nobody has to wait for
// it. The records go in as many commits as it takes, and the holder's own, which names its key, with the last: cut off between, each
// DEK opens under the key that its record names, and the same command does the rest.
func (s *Service) rewrap(ctx context.Context, request string, h holding, from, key string) (changed bool, err error) {
	if from != "" && h.key != from {
		return false, ErrMoved
	}
	s.tree.RLock() // a merge gives holders DEKs of new layers
	defer s.tree.RUnlock()
	known, list, to, err := s.wrapAnew(ctx, h, key)
	if err != nil || len(list) == 0 && to == h.key {
		return false, err
	}
	for len(list) > dropsAtOnce {
		if err := s.update(ctx, "rewrap-"+uuid.NewString(), func(t catalog.Txn) error { return s.replace(t, h, known, list[:dropsAtOnce]) }); err != nil {
			return false, err
		}
		list = list[dropsAtOnce:]
	}
	return true, s.update(ctx, request, func(t catalog.Txn) error {
		if err := s.replace(t, h, known, list); err != nil {
			return err
		}
		return h.move(t, to)
	})
}

// wrapAnew wraps all DEKs that a holder has, and tells of which layers they are, and the id of the key that they are under then.
func (s *Service) wrapAnew(ctx context.Context, h holding, key string) (held []string, list []keystore.Rewrapped, to string, err error) {
	err = s.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		held, err = keystore.HeldLayers(r, h.holder)
		return err
	})
	for _, layer := range held {
		if err != nil {
			return nil, nil, "", err
		}
		var w keystore.Rewrapped
		var needed bool
		if w, needed, err = s.Keys.Rewrap(ctx, h.project, key, h.holder, layer); needed {
			list = append(list, w)
		}
		if to = w.New.CMK.String(); isDamage(err) {
			err = s.ifHeld(ctx, h.holder, layer, err)
		}
	}
	if len(held) == 0 {
		to = h.key // it is plain
	}
	return held, list, to, err
}

// ifHeld is why a DEK could not be wrapped anew; who was rid of it meanwhile is asked to try again.
func (s *Service) ifHeld(ctx context.Context, h keystore.Holder, layer string, why error) error {
	return s.Catalog.View(ctx, func(r catalog.Reader) error {
		if held, err := keystore.HeldLayers(r, h); err != nil || slices.Contains(held, layer) {
			return why
		}
		return refusal.New(refusal.Busy, "try again", "%s %s was rid of a layer meanwhile, or is gone", h.Kind, h.ID)
	})
}

// replace puts what was wrapped anew in the place of what it was made from. What the holder has lost meanwhile it does not get back; where
// it has a layer more, as by a snapshot, all is looked at anew.
func (s *Service) replace(t catalog.Txn, h holding, known []string, list []keystore.Rewrapped) error {
	held, err := keystore.HeldLayers(t, h.holder)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(held, func(layer string) bool { return !slices.Contains(known, layer) }) {
		return refusal.New(refusal.Busy, "try again", "%s got another layer meanwhile", h.name)
	}
	for _, w := range list {
		if !slices.Contains(held, w.Old.Layer) {
			continue
		}
		if err := s.Keys.ReplaceDEK(t, w); err != nil {
			return err
		}
	}
	return nil
}

func gone(d diskRecord) error {
	return refusal.New(refusal.Busy, "try again where it is there still", "disk %s is being made or deleted, or was changed meanwhile", d.Name)
}
