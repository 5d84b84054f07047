package volume_test

import (
	"bytes"
	"testing"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// imported makes an image of a mebibyte of one byte, and no more.
func (m *mains) imported(name string, b byte) error {
	_, err := m.importImage(volume.ImageSpec{Name: name, Size: mib, Encrypted: true}, bytes.Repeat([]byte{b}, mib))
	return err
}

// imageHolds sees what an image holds, which has to be there if its making was answered, and what a disk made of it does. Whatever was
// cut off can be done again. Then all images go.
func (m *mains) imageHolds(name string, made error, b byte, again func() error) {
	m.t.Helper()
	_, err := m.Point(m.t.Context(), volume.ImageKind, "default", name)
	switch {
	case err == nil:
		m.wantImage(name, bytes.Repeat([]byte{b}, mib))
	case made == nil:
		m.t.Errorf("an image that was answered is gone: %v", err)
	default:
		wantCode(m.t, err, refusal.NotFound)
		must(m.t, again())
	}
	m.create(ofImage("seen", name))
	m.has("seen", b)
	m.imagesGo()
	m.has("seen", b)
}

func (m *mains) imagesGo() {
	m.t.Helper()
	var names []string
	must(m.t, m.Points(m.t.Context(), volume.ImageKind, "default", "", func(p volume.Point) error { names = append(names, p.Name); return nil }))
	for _, name := range names {
		_, err := m.DeleteImage(m.t.Context(), "delete "+name, "default", name)
		must(m.t, err)
	}
}

var imageCuts = []cut{
	{"image of data", func(m *mains) {}, func(m *mains) error { return m.imported("golden", 'a') },
		func(m *mains, made error) {
			m.imageHolds("golden", made, 'a', func() error { return m.imported("golden", 'a') })
		}},
	{"image of an attached disk", func(m *mains) {
		m.create(small())
		m.a = m.attach("vault")
		m.writes(m.a, 'a', 0, mib)
		must(m.t, m.a.Device.Sync())
	}, func(m *mains) error {
		_, err := m.CreateImage(m.t.Context(), "golden", imageOf("vault", "golden"))
		return err
	}, func(m *mains, made error) {
		m.has("vault", 'a')
		m.imageHolds("golden", made, 'a', func() error {
			_, err := m.CreateImage(m.t.Context(), "again", imageOf("vault", "golden"))
			return err
		})
	}},
	{"copy of an image", func(m *mains) { must(m.t, m.imported("first", 'a')) }, func(m *mains) error {
		_, err := m.CopyImage(m.t.Context(), "copy", "default", "first", volume.ImageSpec{Project: "default", Name: "second", Encrypted: true}, volume.Work{})
		return err
	}, func(m *mains, made error) {
		m.wantImage("first", bytes.Repeat([]byte{'a'}, mib))
		m.imageHolds("second", made, 'a', func() error {
			_, err := m.CopyImage(m.t.Context(), "again", "default", "first", volume.ImageSpec{Project: "default", Name: "second", Encrypted: true}, volume.Work{})
			return err
		})
	}},
	{"deletion of an image that a disk stands on", func(m *mains) {
		must(m.t, m.imported("golden", 'a'))
		m.create(ofImage("vault", "golden"))
		m.with("vault", func(a *volume.Attachment) { m.writes(a, 'b', 0, 4096) })
	}, func(m *mains) error {
		_, err := m.DeleteImage(m.t.Context(), "delete", "default", "golden")
		return err
	}, func(m *mains, deleted error) {
		_, err := m.Point(m.t.Context(), volume.ImageKind, "default", "golden")
		if deleted == nil || err != nil {
			wantCode(m.t, err, refusal.NotFound)
		} else {
			m.wantImage("golden", bytes.Repeat([]byte{'a'}, mib))
		}
		m.with("vault", func(a *volume.Attachment) {
			m.reads(a, 'b', 0, 4096)
			m.reads(a, 'a', 4096, mib-4096)
		})
		m.imagesGo()
	}},
}

// The power goes after each operation of the catalog and the pool: what was answered holds, and nothing is left half done or behind.
func TestImagesWhenThePowerGoes(t *testing.T) { playCuts(t, imageCuts) }
