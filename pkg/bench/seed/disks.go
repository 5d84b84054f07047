package seed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/clock"
	"nbdcrypt/pkg/volume"
)

// atOnce is how many disks a slate takes: a commit to it costs as much as all that is on it.
const atOnce = 50

const project = "default"

// disks makes the disks, a slate for some at a time, on every processor.
func (s *seeder) disks(ctx context.Context) error {
	few, err := s.makeFewKey(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	total := s.o.Disks + s.o.Few
	next := make(chan int, total/atOnce+1)
	for first := 0; first < total; first += atOnce {
		next <- first
	}
	close(next)
	var all sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			if err := s.makeDisks(ctx, next, few); err != nil {
				cancel(err)
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// makeFewKey makes the key for few, and returns the names of the records that disks need.
func (s *seeder) makeFewKey(ctx context.Context) (names []string, err error) {
	on := &slate{}
	keys, _, err := s.open(ctx, on)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, keys.Close()) }()
	if err := on.wipe(ctx, s, s.needed()...); err != nil {
		return nil, err
	}
	if _, err := keys.CreateKey(ctx, "few", project, keystore.KeySpec{Alias: s.o.FewKey}); err != nil {
		return nil, err
	}
	if err := s.gather(ctx, on); err != nil {
		return nil, err
	}
	return s.needed(), nil
}

// needed names what the project's disks need to be made.
func (s *seeder) needed() (names []string) {
	for name := range s.records {
		for _, prefix := range []string{"grant/" + s.o.Region + "/" + project, "alias/" + s.o.Region + "/" + project + "/", "key/" + project + "/"} {
			if strings.HasPrefix(name, prefix) {
				names = append(names, name)
			}
		}
	}
	return names
}

// makeDisks makes those disks whose turn comes.
func (s *seeder) makeDisks(ctx context.Context, next <-chan int, needed []string) (err error) {
	on := &slate{}
	keys, sealed, err := s.open(ctx, on)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, keys.Close()) }()
	disks, err := volume.Open(ctx, volume.Config{Catalog: sealed, Keys: keys, Pool: nowhere{}, Clock: clock.System{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer disks.Close()
	for first := range next {
		if err := on.wipe(ctx, s, needed...); err != nil {
			return err
		}
		last := min(first+atOnce, s.o.Disks+s.o.Few)
		for i := first; i < last; i++ {
			if _, err := disks.Create(ctx, fmt.Sprint("disk-", i), s.spec(i)); err != nil {
				return err
			}
		}
		if err := s.gather(ctx, on); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (s *seeder) spec(i int) volume.Spec {
	spec := volume.Spec{Project: project, Name: fmt.Sprintf("stored-%06d", i), Size: s.o.Size, SectorSize: 512, Encrypted: true}
	if i >= s.o.Disks {
		spec.Key = s.o.FewKey
	}
	return spec
}
