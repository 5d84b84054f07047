package keystore

import (
	"context"
	"fmt"
	"strings"

	"nbdcrypt/pkg/catalog"
)

// Uses lists what has DEKs under a CMK, in the order of kinds and ids. A holder whose DEK records were damaged when it was
// deleted may still be named: whoever looks holders up leaves out those that are not there.
func (s *Store) Uses(ctx context.Context, project, keyRef string) (holders []Holder, err error) {
	var cmk cmkRecord
	err = s.c.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		cmk, err = s.find(r, project, keyRef)
		return err
	})
	if err != nil {
		return nil, damaged(err)
	}
	prefix := usesPrefix(cmk.ID)
	// All that a record of the index tells is its name, so that its value may be what it likes.
	err = s.c.Catalog.View(ctx, func(r catalog.Reader) error {
		return catalog.EachName(r, prefix, func(key string) error {
			parts := strings.Split(strings.TrimPrefix(key, prefix), "/")
			if len(parts) != 3 {
				return fmt.Errorf("%w: record %q names no holder", catalog.ErrDamaged, key)
			}
			h := Holder{parts[0], parts[1]}
			if n := len(holders); n == 0 || holders[n-1] != h { // the layers of a holder stand together
				holders = append(holders, h)
			}
			return nil
		})
	})
	return holders, damaged(err)
}
