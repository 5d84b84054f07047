package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
)

// dropsAtOnce is how many DEK records one commit drops, or puts, well below catalog.MaxOps.
const dropsAtOnce = 18

const trimPrefix = "trim-deks/"

func trimKey(h keystore.Holder) string { return trimPrefix + h.Kind + "/" + h.ID }

// markTrim notes that a holder has DEK records of layers which its stack does not have any more. The commit that takes the layers out of the
// stack does so; trimDEKs comes after it, or the next start.
func markTrim(t catalog.Txn, h keystore.Holder) error { return t.Put(trimKey(h), nil) }

// dropDEKs drops a holder's DEK records, those of the layers in keep aside. It needs no key.
func (s *Service) dropDEKs(ctx context.Context, h keystore.Holder, keep ...string) error {
	for {
		left := 0
		err := s.update(ctx, "drop-deks-"+uuid.NewString(), func(t catalog.Txn) error {
			held, err := keystore.HeldLayers(t, h)
			if err != nil {
				return err
			}
			held = slices.DeleteFunc(held, func(layer string) bool { return slices.Contains(keep, layer) })
			now := held[:min(dropsAtOnce, len(held))]
			if left = len(held) - len(now); left == 0 {
				return errors.Join(keystore.DropDEKs(t, h, now...), t.Delete(trimKey(h)))
			}
			return keystore.DropDEKs(t, h, now...)
		})
		if err != nil || left == 0 {
			return err
		}
	}
}

// trimDEKs drops the DEK records of a holder that are of no layer of its stack. Layers that are still being made are left alone: the
// holder may get them.
func (s *Service) trimDEKs(ctx context.Context, h keystore.Holder) error {
	s.tree.RLock()
	defer s.tree.RUnlock()
	var keep []string
	err := s.Catalog.View(ctx, func(r catalog.Reader) error {
		top, err := firstOf(r, h)
		if err != nil {
			return err
		}
		layers, err := s.layersFrom(r, top)
		for _, l := range layers {
			keep = append(keep, l.ID.String())
		}
		return errors.Join(err, eachID(r, makingPrefix, func(id uuid.UUID) error { keep = append(keep, id.String()); return nil }))
	})
	if err != nil {
		return err
	}
	return s.dropDEKs(ctx, h, keep...)
}

// firstOf is the layer that a holder's stack begins with: none where the holder is gone.
func firstOf(r catalog.Reader, h keystore.Holder) (uuid.UUID, error) {
	id, err := uuid.Parse(h.ID)
	if err != nil {
		return uuid.Nil, fmt.Errorf("%w: %s %q", catalog.ErrDamaged, h.Kind, h.ID)
	}
	if h.Kind == HolderKind {
		d, err := get(r, diskKey(id), parseDisk)
		return d.Top, ifThere(err)
	}
	p, err := get(r, pointKey(h.Kind, id), parsePoint)
	return p.Layer, ifThere(err)
}

// toTrim are the holders that a crash kept from being trimmed.
func (s *Service) toTrim(ctx context.Context) (list []keystore.Holder, err error) {
	err = s.Catalog.View(ctx, func(r catalog.Reader) error {
		return catalog.EachName(r, trimPrefix, func(key string) error {
			kind, id, _ := strings.Cut(key[len(trimPrefix):], "/")
			list = append(list, keystore.Holder{Kind: kind, ID: id})
			return nil
		})
	})
	return list, err
}

// putDEKs writes DEK records in as many commits as it takes, before the commit that makes their holder use them. The CMK of each has to
// be usable then: what was wrapped a moment ago may never open again.
func (s *Service) putDEKs(ctx context.Context, list []keystore.Record) error {
	for len(list) > 0 {
		now := list[:min(dropsAtOnce, len(list))]
		err := s.update(ctx, "put-deks-"+uuid.NewString(), func(t catalog.Txn) error {
			for _, rec := range now {
				if err := s.Keys.PutUsableDEK(t, rec); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		list = list[len(now):]
	}
	return nil
}
