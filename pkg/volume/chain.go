package volume

import (
	"errors"
	"fmt"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
)

// chain is layers that nobody needs for themselves: no point refers to them, and one layer alone stands on each. What stands on them is
// frozen and needed, or a disk's top.
type chain struct {
	upper layerRecord
	disk  uuid.UUID     // whose top upper is; the zero UUID where it is frozen
	lower []layerRecord // top first
	under uuid.UUID     // what stands below them, the zero UUID for nothing
}

// ids are those of the layers that go.
func (c *chain) ids() (list []uuid.UUID) {
	for _, l := range c.lower {
		list = append(list, l.ID)
	}
	return list
}

// onlyChild is the layer that alone keeps another, where that is all that does.
func onlyChild(r catalog.Reader, id uuid.UUID) (child uuid.UUID, is bool, err error) {
	list, err := refs(r, id)
	if err != nil || len(list) != 1 || list[0].Kind != layerRef {
		return uuid.Nil, false, err
	}
	return list[0].ID, true, nil
}

// diskOn is the disk whose top a layer is.
func diskOn(r catalog.Reader, id uuid.UUID) (disk uuid.UUID, err error) {
	list, err := refs(r, id)
	for _, ref := range list {
		if ref.Kind == HolderKind {
			disk = ref.ID
		}
	}
	return disk, err
}

// chainAt is the longest chain that a layer is part of, nil where it is part of none: it is needed, on its way out, or gone.
func chainAt(r catalog.Reader, id uuid.UUID) (*chain, error) {
	c := &chain{}
	for at := id; ; {
		child, only, err := onlyChild(r, at)
		if err != nil || !only && at == id {
			return nil, err
		}
		if !only {
			break
		}
		if at = child; c.upper.ID == at {
			return nil, fmt.Errorf("%w: layer %s stands on itself", catalog.ErrDamaged, at)
		}
		c.upper.ID = at
		if c.disk, err = diskOn(r, at); err != nil || c.disk != uuid.Nil {
			break
		}
	}
	return c, c.fill(r)
}

// fill reads the layers of the chain, from its upper end down to the first that is needed.
func (c *chain) fill(r catalog.Reader) (err error) {
	if c.upper, err = get(r, layerKey(c.upper.ID), parseLayer); err != nil {
		return err
	}
	for c.under = c.upper.Parent; c.under != uuid.Nil; {
		if _, only, err := onlyChild(r, c.under); err != nil || !only {
			return err
		}
		l, err := get(r, layerKey(c.under), parseLayer)
		if err != nil {
			return err
		}
		c.lower = append(c.lower, l)
		c.under = l.Parent
	}
	return nil
}

// same tells whether the chain is as it was when it was read: nothing has come to stand on it, and nothing of it has gone.
func (c *chain) same(r catalog.Reader) (bool, error) {
	at, err := get(r, layerKey(c.upper.ID), parseLayer)
	if errors.Is(err, catalog.ErrNotFound) {
		return false, nil
	}
	if err != nil || at.Merged != uuid.Nil {
		return false, err
	}
	next := at.Parent
	for _, l := range c.lower {
		if next != l.ID {
			return false, nil
		}
		_, only, err := onlyChild(r, l.ID)
		if err != nil || !only {
			return false, err
		}
		now, err := get(r, layerKey(l.ID), parseLayer)
		if err != nil {
			return false, err
		}
		next = now.Parent
	}
	return next == c.under, nil
}

// holders are all disks and points that stand on a layer.
type holders struct {
	disks  []diskRecord
	points []pointRecord
}

// standing finds them by going up the tree. Those of a layer that was merged into another stand on either.
func standing(r catalog.Reader, id uuid.UUID) (h holders, err error) {
	seen := map[uuid.UUID]bool{id: true}
	for next := []uuid.UUID{id}; len(next) > 0; {
		at := next[0]
		next = next[1:]
		list, err := refs(r, at)
		if err != nil {
			return h, err
		}
		for _, ref := range list {
			switch ref.Kind {
			case layerRef:
				if !seen[ref.ID] {
					seen[ref.ID] = true
					next = append(next, ref.ID)
				}
			case HolderKind:
				d, err := get(r, diskKey(ref.ID), parseDisk)
				if err != nil {
					return h, err
				}
				h.disks = append(h.disks, d)
			default:
				p, err := get(r, pointKey(ref.Kind, ref.ID), parsePoint)
				if err != nil {
					return h, err
				}
				h.points = append(h.points, p)
			}
		}
	}
	return h, nil
}
