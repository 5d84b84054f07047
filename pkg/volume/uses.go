package volume

import (
	"context"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
)

// HolderKind is what disks are called as holders of DEKs.
const HolderKind = "disk"

// Named is a disk, or a point, as lists of something else mention it.
type Named struct {
	ID, Name string
	Attached bool
}

// Named looks many things of a kind up at once, in the order of their ids. Those that are not there any more are left out; one whose
// record is damaged has no name.
func (s *Service) Named(ctx context.Context, kind string, ids []string) (list []Named, err error) {
	prefix := kind + "/"
	keys := make([]string, 0, len(ids))
	for _, id := range ids {
		if parsed, err := uuid.Parse(id); err == nil {
			keys = append(keys, prefix+parsed.String())
		}
	}
	err = s.Catalog.View(ctx, func(r catalog.Reader) error {
		return eachOf(r, prefix, keys, func(p catalog.Pair, err error) error {
			name := ""
			if err == nil {
				name = nameIn(kind, p)
			}
			id := p.Key[len(prefix):]
			list = append(list, Named{id, name, kind == HolderKind && s.attachment(uuid.MustParse(id)) != nil})
			return nil
		})
	})
	return list, explainList(err)
}

// nameIn is the name that a record tells; one that is damaged tells none.
func nameIn(kind string, p catalog.Pair) string {
	if kind == HolderKind {
		d, _ := parseDisk(p.Key, p.Value)
		return d.Name
	}
	point, _ := parsePoint(p.Key, p.Value)
	return point.Name
}

// eachOf is catalog.GetAll of things of a kind. Where they are many of all that there are it walks over all, which takes less for each.
func eachOf(r catalog.Reader, prefix string, keys []string, fn func(catalog.Pair, error) error) error {
	const worth = 4
	all, err := r.Count(prefix)
	if err != nil {
		return err
	}
	if len(keys)*worth < all {
		return catalog.GetAll(r, keys, fn)
	}
	wanted := make(map[string]bool, len(keys))
	for _, key := range keys {
		wanted[key] = true
	}
	return catalog.Walk(r, prefix, func(p catalog.Pair, err error) error {
		if !wanted[p.Key] {
			return nil
		}
		return fn(p, err)
	})
}
