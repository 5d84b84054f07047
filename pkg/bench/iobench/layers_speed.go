package iobench

import "context"

// depths are how many layers reads go through.
var depths = []int{1, 4, 8}

// layerColumns are the loads, and what is written before and after a snapshot.
var layerColumns = []struct{ read, write column }{
	{named("randread-4k"), named("first-4k")},
	{named("read-1m"), named("first-1m")},
}

// reads reads from disks with different numbers of layers, the data in the lowest, one after the other in each round.
func (s *strata) reads(ctx context.Context) (list []Share, err error) {
	var uris, disks []string
	for _, n := range depths {
		disk, uri, err := s.filled(ctx)
		if err != nil {
			return nil, err
		}
		for range n - 1 {
			if err := s.snapshot(ctx, disk); err != nil {
				return nil, err
			}
			if err := scatter(ctx, uri, s.o.Size); err != nil {
				return nil, err
			}
		}
		uris, disks = append(uris, uri), append(disks, disk)
	}
	for _, c := range layerColumns {
		speeds, err := s.readAll(ctx, c.read, uris)
		if err != nil {
			return nil, err
		}
		for i, n := range depths[1:] {
			one := newShare(c.read.name, speeds[i+1], speeds[0], readGoal)
			one.Layers = n
			list = append(list, one)
		}
	}
	for _, disk := range disks {
		if err := s.away(ctx, disk); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// readAll answers the speeds by disk and round.
func (s *strata) readAll(ctx context.Context, c column, uris []string) ([][]float64, error) {
	speeds := make([][]float64, len(uris))
	for round := range s.o.Rounds {
		for turn := range uris {
			i := (turn + round) % len(uris)
			speed, err := s.load(ctx, c, uris[i], round)
			if err != nil {
				return nil, err
			}
			speeds[i] = append(speeds[i], speed)
			s.step()
		}
	}
	return speeds, nil
}

// writes writes each block once, of a disk that is full, before a snapshot and after it.
func (s *strata) writes(ctx context.Context) (list []Share, err error) {
	for _, c := range layerColumns {
		var before, after []float64
		for round := range s.o.Rounds {
			disk, uri, err := s.filled(ctx)
			if err != nil {
				return nil, err
			}
			old, err := s.load(ctx, c.write, uri, round)
			if err != nil {
				return nil, err
			}
			if err := s.snapshot(ctx, disk); err != nil {
				return nil, err
			}
			now, err := s.load(ctx, c.write, uri, round)
			if err != nil {
				return nil, err
			}
			before, after = append(before, old), append(after, now)
			if err := s.away(ctx, disk); err != nil {
				return nil, err
			}
			s.step()
		}
		list = append(list, newShare(c.write.name, after, before, writeGoal))
	}
	return list, nil
}
