package iobench

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/volume/layer"
)

// hollow is a pool that takes what is written to data volumes for written. A map that was made on it tells of data that is nowhere: a
// stand-in for a disk that is larger than there is room.
type hollow struct{ pool.Pool }

func (h hollow) Open(ctx context.Context, name string, readOnly bool) (pool.Volume, error) {
	v, err := h.Pool.Open(ctx, name, readOnly)
	if err != nil || !strings.HasSuffix(name, "/data") {
		return v, err
	}
	return hollowVolume{v}, nil
}

type hollowVolume struct{ pool.Volume }

func (hollowVolume) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

// hollowOut has the map of a disk that is not attached say of so many bytes that they are data, in runs of 1 MiB all over the disk.
func hollowOut(ctx context.Context, d control.Disk, written int64) error {
	const run = 1 << 20
	id, err := uuid.Parse(d.Layers[0].ID)
	if err != nil {
		return err
	}
	files, err := pool.OpenFiles(filepath.Dir(filepath.Dir(d.Layers[0].Segments[0])))
	if err != nil {
		return err
	}
	l, err := layer.Open(ctx, hollow{files}, layer.Header{ID: id, Encrypted: d.Encrypted, SectorSize: d.SectorSize}, d.Size, layer.Options{})
	if err != nil {
		return err
	}
	nothing, runs := make([]byte, run), written/run
	for i := range runs {
		if err = ctx.Err(); err == nil {
			err = l.WriteNew(nothing, d.Size/run*i/runs*run)
		}
		if err != nil {
			_ = l.Close() // it is no disk yet
			return err
		}
	}
	if err := l.Flush(); err != nil {
		_ = l.Close() // the same
		return err
	}
	return l.Close()
}
