package iobench

import (
	"testing"

	"github.com/google/uuid"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/volume/layer"
)

func TestShare(t *testing.T) {
	s := newShare("reads", []float64{90, 200, 70}, []float64{100, 100, 100}, 0.9)
	if s.BytesPerSecond != 90 || s.Beside != 100 || s.Ratio != (Spread{0.9, 0.7, 2}) || !s.Met {
		t.Errorf("%+v", s)
	}
	if newShare("reads", []float64{89}, []float64{100}, 0.9).Met {
		t.Error("0.89 is not 0.9")
	}
}

// TestHollowOut: a disk that was hollowed out has so much data as its map says, and takes next to no room.
func TestHollowOut(t *testing.T) {
	const size, written = 1 << 30, 100 << 20
	dir := t.TempDir()
	files, err := pool.OpenFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	h := layer.Header{ID: uuid.New(), Encrypted: true, SectorSize: 512}
	if err := layer.Create(t.Context(), files, h, size); err != nil {
		t.Fatal(err)
	}
	segments, err := files.Segments(layer.DataName(h.ID))
	if err != nil {
		t.Fatal(err)
	}
	d := control.Disk{Size: size, SectorSize: 512, Encrypted: true, Layers: []control.DiskLayer{{ID: h.ID.String(), Segments: segments}}}
	if err := hollowOut(t.Context(), d, written); err != nil {
		t.Fatal(err)
	}
	l, err := layer.Open(t.Context(), files, h, size, layer.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	usage, err := l.Usage(t.Context())
	if err != nil || usage.Data != written {
		t.Errorf("%d bytes are data, not %d: %v", usage.Data, written, err)
	}
	v, err := files.Open(t.Context(), layer.DataName(h.ID), true)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if at, err := v.NextData(0); err != nil || at != v.Size() {
		t.Errorf("there is data at %d: %v", at, err)
	}
}
