package keystore

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"nbdcrypt/pkg/catalog"
)

// CarryDEK is the record of a holder's layer, as wrapped as it lies in the catalog: for a file that goes elsewhere. Nothing in it is
// secret without the CMK.
func (s *Store) CarryDEK(ctx context.Context, h Holder, layer string) (text []byte, err error) {
	err = s.c.Catalog.View(ctx, func(r catalog.Reader) error {
		rec, err := readDEK(r, h, layer)
		if err == nil {
			text, err = json.Marshal(rec)
		}
		return err
	})
	return text, damaged(err)
}

// CarriedDEK reads a record that comes back from elsewhere. It has to be of this holder and layer, in this project; whether it opens is
// found out by who uses it.
func CarriedDEK(text []byte, project string, h Holder, layer string) (rec Record, err error) {
	if err := checkPlace(h, layer); err != nil {
		return rec, err
	}
	if rec, err = parseDEK(dekKey(h, layer), bytes.Clone(text)); err != nil {
		return rec, damaged(err)
	}
	if rec.Project != project {
		return rec, damaged(fmt.Errorf("%w: the DEK of %s %s is of project %s, and not of %s", catalog.ErrDamaged, h.Kind, h.ID, rec.Project, project))
	}
	return rec, nil
}
