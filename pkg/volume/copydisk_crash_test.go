package volume_test

import (
	"bytes"
	"testing"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// planned is what the disk of every cut has as its id.
var planned = uuid.MustParse("5e000000-0000-4000-8000-000000000009")

func (m *mains) copies(request string) error {
	spec := copied("vault", "golden", keystore.DefaultAlias)
	spec.ID = planned
	_, err := m.make(request, spec)
	return err
}

var copyCuts = []cut{
	{"copy of an image into a disk", func(m *mains) { must(m.t, m.imported("golden", 'a')) },
		func(m *mains) error { return m.copies("copy") },
		func(m *mains, made error) {
			_, err := m.Get(m.t.Context(), "default", planned.String())
			if err != nil {
				wantCode(m.t, err, refusal.NotFound)
			}
			if made == nil && err != nil {
				m.t.Errorf("a disk that was answered is gone: %v", err)
			}
			must(m.t, m.copies("copy")) // the same request finds it, or makes it
			m.has("vault", 'a')
			m.wantImage("golden", bytes.Repeat([]byte{'a'}, mib))
			m.imagesGo()
			m.has("vault", 'a')
		}},
	{"deletion of a held disk by its holder", func(m *mains) {
		must(m.t, m.imported("golden", 'a'))
		must(m.t, m.copies("copy"))
	}, func(m *mains) error {
		m.keep(planned.String())
		return m.DeleteHeld(m.t.Context(), "delete", "default", planned.String())
	}, func(m *mains, deleted error) {
		d, err := m.Get(m.t.Context(), "default", planned.String())
		if err != nil {
			wantCode(m.t, err, refusal.NotFound)
		} else if deleted == nil || d.Status != volume.Available {
			m.t.Errorf("%+v is there", d)
		} else {
			m.has("vault", 'a')
		}
		m.imagesGo()
	}},
}

// The power goes after each operation of the catalog and the pool: a disk is there with all its data, or not at all.
func TestCopiedDisksWhenThePowerGoes(t *testing.T) { playCuts(t, copyCuts) }
