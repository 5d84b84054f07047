package volume

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/pool"
)

// MergeKind is what a merge is called as the holder of the DEK of the layer that it makes.
const MergeKind = "merge"

// mergeRecord is a merge that is not done, at merge/ID. ID is the layer that comes into the place of Upper and of the layers below it
// that only Upper needs; it is Upper itself where nothing has to be copied, since all of theirs is hidden.
type mergeRecord struct {
	Version int         `json:"v"`
	ID      uuid.UUID   `json:"id"`
	Upper   uuid.UUID   `json:"upper"`
	Lower   []uuid.UUID `json:"lower"`
	// Made tells that the layer is there, and that what was copied into it stays.
	Made bool `json:"made,omitempty"`
	// Switched tells that it stands in their place.
	Switched bool `json:"switched,omitempty"`
	// Open names the openings through which it is written.
	Open []pool.Identity `json:"open,omitempty"`
}

const mergePrefix = "merge/"

func mergeKey(id uuid.UUID) string { return mergePrefix + id.String() }

func (m mergeRecord) holder() keystore.Holder {
	return keystore.Holder{Kind: MergeKind, ID: m.ID.String()}
}

func parseMerge(key string, b []byte) (m mergeRecord, err error) {
	if err = parse(key, b, &m, &m.Version); err == nil && mergeKey(m.ID) != key {
		err = fmt.Errorf("%w: record %q is merge %s", catalog.ErrDamaged, key, m.ID)
	}
	return m, err
}

// Merge gives back a layer that nobody needs for itself, with its neighbours of which the same is true: what is still needed of them is
// copied into the top of the disk that stands on them, or with the frozen layer that stands on them into a new one. Unless always, it leaves
// alone what would cost more than it gives. A layer that is needed, or gone, is fine. Long work in one tree comes one after the other;
// what ended early, also by a crash, is gone on with by the next.
func (s *Service) Merge(ctx context.Context, id uuid.UUID, always bool, w Work) error {
	unlock, err := s.lockTree(ctx, id)
	if err != nil {
		return ifThere(err)
	}
	defer unlock()
	for tries := 1; ; tries++ {
		if err = s.merge(ctx, id, always, w); !errors.Is(err, errGiveWay) || tries == mergeTries {
			return err
		}
	}
}

// mergeTries is how often a merge begins anew because something else was done to its layers.
const mergeTries = 8

// merge is Merge for who has the lock of the tree.
func (s *Service) merge(ctx context.Context, id uuid.UUID, always bool, w Work) error {
	if err := s.mergePending(ctx, id, w); err != nil {
		return err
	}
	c, err := s.chain(ctx, id)
	if err != nil || c == nil {
		return err
	}
	if c.disk != uuid.Nil {
		return s.mergeIntoTop(ctx, c, always, w)
	}
	return s.mergeFrozen(ctx, c, always, w)
}

// chain is chainAt in a view of its own.
func (s *Service) chain(ctx context.Context, id uuid.UUID) (c *chain, err error) {
	err = s.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		c, err = chainAt(r, id)
		return err
	})
	return c, err
}

// mergeIntoTop fills the top of a disk with what it lacks of a chain.
func (s *Service) mergeIntoTop(ctx context.Context, c *chain, always bool, w Work) error {
	if !always {
		if worth, err := s.worth(ctx, c); err != nil || !worth {
			return err
		}
	}
	var d diskRecord
	err := s.update(ctx, "fill-begin-"+uuid.NewString(), func(t catalog.Txn) (err error) {
		if d, err = get(t, diskKey(c.disk), parseDisk); err != nil {
			return err
		}
		if same, err := c.same(t); err != nil || !same || d.Top != c.upper.ID {
			return errors.Join(err, errGiveWay)
		}
		if d.Fill != nil && (d.Fill.keeps() || d.Fill.Until == c.under) {
			return nil // it reaches as far
		}
		d.Fill = &fill{Until: c.under, Why: fillMerge}
		return put(t, diskKey(d.ID), d)
	})
	if err != nil {
		return err
	}
	return explain(d.Name, s.runFill(ctx, d, w))
}

// Limits of what is merged without having been asked for.
const (
	cheapCopy  = 64 << 20 // is always worth it
	deepStack  = 16       // layers, from which on each one less is worth it
	costToGain = 1        // how many bytes may be copied for each that is given back
)

// worth tells whether merging a chain gives back as much as it costs, or costs little, or stacks have become deep.
func (s *Service) worth(ctx context.Context, c *chain) (bool, error) {
	var st *Stack
	if c.disk != uuid.Nil {
		theirs, done, ok := s.look(c.disk)
		if !ok {
			return false, nil // not now
		}
		defer done()
		st = theirs
	}
	open, done, err := s.openMaps(ctx, st, append([]layerRecord{c.upper}, c.lower...))
	if err != nil {
		return false, err
	}
	defer done()
	lack, err := lacks(ctx, open, c.under != uuid.Nil)
	if err != nil {
		return false, err
	}
	cost, held := lack.data, int64(0)
	for i, l := range open {
		u, err := l.Usage(ctx)
		if err != nil {
			return false, err
		}
		if i > 0 {
			held += u.Data
		} else if c.disk == uuid.Nil && !lack.nothing() {
			cost += u.Data // all of it goes into the new layer
		}
	}
	depth := 0
	err = s.Catalog.View(ctx, func(r catalog.Reader) error {
		layers, err := s.layersFrom(r, c.upper.ID)
		depth = len(layers)
		return err
	})
	return cost <= cheapCopy || depth >= deepStack || cost <= costToGain*(held-lack.data), err
}
