package volume

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
)

// tree is what the catalog says of layers and of who stands on them, at one moment.
type tree struct {
	layers         map[uuid.UUID]layerRecord
	doomed, making map[uuid.UUID]bool
	// wanted are the references that there have to be, and why; there are those that there are.
	wanted map[string]string
	there  map[string]bool
	// used are the layers that somebody refers to.
	used map[uuid.UUID]bool
	// blind tells that something could not be read, so that what it needs is not known.
	blind bool
}

// checkTree holds layers, disks and points against the references that keep layers alive. One that is missing has a layer go that somebody
// needs; one too many keeps a layer for nothing.
func (s *Service) checkTree(ctx context.Context, found func(Problem)) error {
	return s.Catalog.View(ctx, func(r catalog.Reader) error {
		t, err := readTree(r, found)
		if err != nil {
			return err
		}
		for key, why := range t.wanted {
			if !t.there[key] {
				found(Problem{damage, "layer", key, "it is missing, which kept the layer: " + why, "delete nothing that shares layers with it; restore the state directory from a backup", false})
			}
		}
		for key := range t.there {
			if _, wanted := t.wanted[key]; !wanted && !t.blind {
				found(Problem{note, "layer", key, "it keeps a layer for something that is not there", "nothing is lost but room", false})
			}
		}
		for id := range t.layers {
			if !t.blind && !t.isUsed(id) {
				found(Problem{note, "layer", layerKey(id), "nothing stands on it", "nothing is lost but room", false})
			}
		}
		for id := range t.doomed {
			found(Problem{note, "layer", id.String(), "its removal has not ended", "where nothing is being deleted, restart the daemon: it goes on, or says why it can't", false})
		}
		return nil
	})
}

func readTree(r catalog.Reader, found func(Problem)) (*tree, error) {
	t := &tree{layers: map[uuid.UUID]layerRecord{}, doomed: map[uuid.UUID]bool{}, making: map[uuid.UUID]bool{}, used: map[uuid.UUID]bool{}, wanted: map[string]string{}, there: map[string]bool{}}
	mark := func(prefix string, of map[uuid.UUID]bool) error {
		return catalog.EachName(r, prefix, func(key string) error {
			if id, err := uuid.Parse(key[len(prefix):]); err == nil {
				of[id] = true
			} else {
				found(Problem{damage, "catalog", key, "it names nothing", "restore the state directory from a backup", false})
			}
			return nil
		})
	}
	for _, step := range []func() error{
		func() error { return mark(doomedPrefix, t.doomed) },
		func() error { return mark(makingPrefix, t.making) },
		func() error { return mark(mergePrefix, t.used) },
		func() error {
			return catalog.EachName(r, "ref/", func(key string) error {
				layer, _, _ := strings.Cut(strings.TrimPrefix(key, "ref/"), "/")
				id, _ := uuid.Parse(layer)
				t.there[key], t.used[id] = true, true
				return nil
			})
		},
		func() error { return t.readLayers(r, found) },
		func() error { return t.readHolders(r) },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// readLayers wants a reference for each layer that stands on another. One that is being made has none yet, and one that goes may never have
// had one.
func (t *tree) readLayers(r catalog.Reader, found func(Problem)) error {
	err := catalog.Walk(r, "layer/", func(p catalog.Pair, err error) error {
		var l layerRecord
		if err == nil {
			l, err = parseLayer(p.Key, p.Value)
		}
		if err != nil {
			t.blind = true
			found(Problem{damage, "layer", p.Key, err.Error(), "restore the state directory from a backup; what stands on it can't be used until then", false})
			return nil
		}
		t.layers[l.ID] = l
		return nil
	})
	for id, l := range t.layers {
		key := refKey(l.Parent, layerRef, id)
		if l.Parent != uuid.Nil && !t.making[id] && (!t.doomed[id] || t.there[key]) {
			t.wanted[key] = fmt.Sprintf("layer %s stands on it", id)
		}
	}
	return err
}

// readHolders wants a reference for each point that has a layer, and for each disk whose top stands on one. What is half made or half gone may
// have its reference, or not.
func (t *tree) readHolders(r catalog.Reader) error {
	want := func(layer uuid.UUID, kind string, id uuid.UUID, whole bool) {
		key := refKey(layer, kind, id)
		if whole || t.there[key] {
			t.wanted[key] = kind + " " + id.String() + " has it"
		}
	}
	err := catalog.Walk(r, diskPrefix, func(p catalog.Pair, err error) error {
		var d diskRecord
		if err == nil {
			d, err = parseDisk(p.Key, p.Value)
		}
		if err != nil {
			t.blind = true
			return nil
		}
		t.used[d.Top] = true
		if t.layers[d.Top].Parent != uuid.Nil {
			want(d.Top, HolderKind, d.ID, d.Status == Available)
		}
		return nil
	})
	for _, kind := range PointKinds {
		if err == nil {
			err = catalog.Walk(r, kind+"/", func(pair catalog.Pair, err error) error {
				var p pointRecord
				if err == nil {
					p, err = parsePoint(pair.Key, pair.Value)
				}
				if err != nil {
					t.blind = true
				} else if p.Layer != uuid.Nil {
					want(p.Layer, kind, p.ID, p.Status == Available)
				}
				return nil
			})
		}
	}
	return err
}

// isUsed tells whether there is somebody for whom a layer is there, or who sees to its end.
func (t *tree) isUsed(id uuid.UUID) bool { return t.used[id] || t.doomed[id] || t.making[id] }
