package iobench

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"nbdcrypt/nbd/nbdclient"
	"nbdcrypt/pkg/control"
)

// stallers is on how many connections is written while a snapshot is made.
const stallers = 4

// Stall is how long answers took while snapshots were made, in seconds.
type Stall struct {
	Disk    int64 `json:"disk"`
	Written int64 `json:"written"`
	// Calm is the longest answer of a round before its snapshot, Longest that while it was made, from the command's start to its end.
	Calm    Delay `json:"calm"`
	Longest Delay `json:"longest"`
	// Sync is that of one sync among those writes, Beyond the longest answer less one sync of its round.
	Sync   Delay `json:"sync"`
	Beyond Delay `json:"beyond"`
	// Command is how long the command took, which waits for what was written before to be durable.
	Command Delay `json:"command"`
}

// stall makes snapshots of a large disk while small blocks of it are written.
func (s *strata) stall(ctx context.Context) (r Stall, err error) {
	d, err := s.create(ctx, s.o.Disk)
	if err != nil {
		return r, err
	}
	if err := hollowOut(ctx, d, s.o.Written); err != nil {
		return r, err
	}
	s.step()
	a, err := s.client.Attach(ctx, d.Name, control.Attach{})
	if err != nil {
		return r, err
	}
	clients, err := dialMany(ctx, stallers, func(int) string { return a.URI })
	defer hangUp(clients)
	if err != nil {
		return r, err
	}
	var rounds stallRounds
	for range s.o.Rounds {
		if err := rounds.play(ctx, s, d, clients); err != nil {
			return r, err
		}
		s.step()
	}
	r = Stall{Disk: s.o.Disk, Written: s.o.Written, Calm: newDelay(rounds.calm, 0), Longest: newDelay(rounds.longest, 0), Sync: newDelay(rounds.sync, 0),
		Beyond: newDelay(rounds.beyond, stallLimit.Seconds()), Command: newDelay(rounds.command, 0)}
	hangUp(clients)
	return r, s.away(ctx, d.Name)
}

// stallRounds are the figures of all rounds.
type stallRounds struct{ calm, longest, sync, beyond, command []float64 }

// play writes for a while, makes a snapshot, and writes on for a moment.
func (r *stallRounds) play(ctx context.Context, s *strata, d control.Disk, clients []*nbdclient.Client) (err error) {
	w := startWriters(clients, d.Size)
	defer func() { err = errors.Join(err, w.end()) }()
	calm := time.Duration(s.o.Seconds * float64(time.Second))
	sync, err := s.syncAmong(ctx, calm)
	if err != nil {
		return err
	}
	before := w.takeLongest()
	took, err := timed(func() error { return s.snapshot(ctx, d.Name) })
	if err != nil {
		return err
	}
	longest := w.takeLongest()
	r.calm, r.longest, r.sync, r.command = append(r.calm, before), append(r.longest, longest), append(r.sync, sync), append(r.command, took)
	r.beyond = append(r.beyond, max(0, longest-sync))
	return nil
}

// syncAmong times one sync after the other for so long, and answers the median.
func (s *strata) syncAmong(ctx context.Context, length time.Duration) (float64, error) {
	file, err := os.CreateTemp(s.at.dir, "sync")
	if err != nil {
		return 0, err
	}
	defer file.Close()
	var times []float64
	for end := time.Now().Add(length); time.Now().Before(end) || len(times) == 0; {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		took, err := timed(func() error {
			_, err := file.Write(make([]byte, 512))
			return errors.Join(err, file.Sync())
		})
		if err != nil {
			return 0, err
		}
		times = append(times, took)
		time.Sleep(10 * time.Millisecond)
	}
	return newDelay(times, 0).Median, nil
}

// writers write small blocks all over a disk, one at a time on each connection.
type writers struct {
	all  sync.WaitGroup
	stop chan struct{}

	mu      sync.Mutex
	longest time.Duration
	waiting map[int]time.Time // since when an answer is waited for, by connection
	err     error
}

func startWriters(clients []*nbdclient.Client, size int64) *writers {
	w := &writers{stop: make(chan struct{}), waiting: map[int]time.Time{}}
	for i, c := range clients {
		w.all.Go(func() { w.write(i, c, size) })
	}
	return w
}

func (w *writers) write(i int, c *nbdclient.Client, size int64) {
	const block = 4 << 10
	rng := rand.New(rand.NewPCG(uint64(i), uint64(size)))
	data := noise(block, rng)
	for {
		select {
		case <-w.stop:
			return
		default:
		}
		w.mu.Lock()
		w.waiting[i] = time.Now()
		w.mu.Unlock()
		_, err := c.WriteAt(data, rng.Int64N(size/block)*block)
		w.mu.Lock()
		w.longest = max(w.longest, time.Since(w.waiting[i]))
		delete(w.waiting, i)
		w.err = errors.Join(w.err, err)
		w.mu.Unlock()
		if err != nil {
			return
		}
		time.Sleep(time.Millisecond) // what is measured is answers, not how much the storage takes
	}
}

// takeLongest is how long the longest answer took since the last call, or is being waited for.
func (w *writers) takeLongest() (seconds float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	longest := w.longest
	for _, since := range w.waiting {
		longest = max(longest, time.Since(since))
	}
	w.longest = 0
	return longest.Seconds()
}

func (w *writers) end() error {
	close(w.stop)
	w.all.Wait()
	return w.err
}
