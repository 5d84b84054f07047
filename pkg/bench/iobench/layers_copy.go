package iobench

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"

	"nbdcrypt/nbd/nbdclient"
)

// scatter writes some small blocks, so that a layer is not empty.
func scatter(ctx context.Context, uri string, size int64) error {
	const block, blocks = 4 << 10, 64
	client, err := nbdclient.Dial(ctx, uri)
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(uint64(size), blocks))
	for range blocks {
		if _, err := client.WriteAt(noise(block, rng), rng.Int64N(size/block)*block); err != nil {
			hangUp([]*nbdclient.Client{client})
			return err
		}
	}
	return client.Disconnect()
}

// copies times backups and restores as programs, beside cp of the same bytes and a sync of what it wrote.
func (s *strata) copies(ctx context.Context) ([]Share, error) {
	disk, _, err := s.filled(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := s.client.Detach(ctx, disk, true); err != nil {
		return nil, err
	}
	var copied, saved, restored []float64
	for range s.o.Rounds {
		backup, fresh, copy := s.name("backup"), s.name("restored"), s.at.name("copy")
		for _, timing := range []struct {
			into *[]float64
			do   func() error
		}{
			{&copied, func() error { return s.copyPlainly(ctx, disk, copy) }},
			{&saved, func() error { return s.command(ctx, "backup", "create", disk, backup, "--full") }},
			{&restored, func() error {
				return s.command(ctx, "disk", "create", fresh, "--from-backup", backup, "--encrypted")
			}},
		} {
			if err := s.at.settle(); err != nil {
				return nil, err
			}
			took, err := timed(timing.do)
			if err != nil {
				return nil, err
			}
			*timing.into = append(*timing.into, float64(s.o.Size)/took)
		}
		if err := errors.Join(os.Remove(copy), s.command(ctx, "backup", "delete", backup, "--yes"), s.client.DiskDelete(ctx, fresh, true)); err != nil {
			return nil, err
		}
		s.step()
	}
	return []Share{newShare("backup", saved, copied, copyGoal), newShare("restore", restored, copied, copyGoal)}, nil
}

// copyPlainly copies the file that the disk lies in, every byte of it, to where backups go.
func (s *strata) copyPlainly(ctx context.Context, disk, to string) error {
	d, err := s.client.DiskShow(ctx, disk)
	if err != nil {
		return err
	}
	if _, err := run(ctx, patience, "cp", "--sparse=never", "--reflink=never", d.Layers[len(d.Layers)-1].Segments[0], to); err != nil {
		return err
	}
	_, err = run(ctx, patience, "sync", to)
	return err
}
