package iobench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"nbdcrypt/pkg/bench"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/process"
	"nbdcrypt/pkg/refusal"
)

// What the project wants at least, as a share of what it is beside, and at most.
const (
	readGoal   = 0.9 // through many layers, of one
	writeGoal  = 0.8 // after a snapshot, of before it
	copyGoal   = 0.8 // of cp
	stallLimit = 50 * time.Millisecond
)

// MostLayerRounds is how many rounds there can be: each makes a snapshot of one disk, which may have no more.
const MostLayerRounds = 7

// LayersOptions say how layers are measured.
type LayersOptions struct {
	// Disk is the size of the disk whose snapshots are timed, Written how much of it its map tells to be written.
	Disk, Written int64
	// Size is that of all other disks.
	Size    int64
	Rounds  int
	Seconds float64
	// Dir is where all is made; empty means a temporary directory that is no memory.
	Dir string
	// Progress hears how many steps there were.
	Progress func(done, total int)
}

// LayersReport is what Layers found: the JSON of docs/cli.md.
type LayersReport struct {
	Machine    Machine `json:"machine"`
	Version    string  `json:"version"`
	FileSystem string  `json:"file_system"`
	Dir        string  `json:"dir"`
	Rounds     int     `json:"rounds"`
	Size       int64   `json:"size"`
	Snapshot   Stall   `json:"snapshot"`
	Reads      []Share `json:"reads"`
	Writes     []Share `json:"writes"`
	Copies     []Share `json:"copies"`
}

// Share is how fast something is beside something else, medians of the rounds. The ratio is that within a round.
type Share struct {
	What string `json:"what"`
	// Layers is through how many the reads went, 0 for all that is no read.
	Layers         int     `json:"layers"`
	BytesPerSecond float64 `json:"bytes_per_second"`
	Beside         float64 `json:"beside"` // bytes a second too
	Ratio          Spread  `json:"ratio"`
	Goal           float64 `json:"goal"`
	Met            bool    `json:"met"`
}

// Spread is of several rounds.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func newSpread(of []float64) Spread {
	d := newDelay(of, 0)
	return Spread{d.Median, d.Min, d.Max}
}

// newShare takes the speeds of the same rounds.
func newShare(what string, of, beside []float64, goal float64) Share {
	ratios := make([]float64, len(of))
	for i := range of {
		ratios[i] = of[i] / beside[i]
	}
	s := Share{What: what, BytesPerSecond: bench.Median(of), Beside: bench.Median(beside), Ratio: newSpread(ratios), Goal: goal}
	s.Met = s.Ratio.Median >= goal
	return s
}

// strata is one run of Layers.
type strata struct {
	*ours
	o     LayersOptions
	at    *site
	done  int
	total int
	names int
}

// Layers measures what snapshots cost, those who write meanwhile and those who read and write afterwards, and how long backups take.
func Layers(ctx context.Context, o LayersOptions) (LayersReport, error) {
	return alone(ctx, func(ctx context.Context) (LayersReport, error) { return layered(ctx, o) })
}

func layered(ctx context.Context, o LayersOptions) (report LayersReport, err error) {
	fio := tool{"fio", "fio"}
	if fio.missing() {
		return report, refusal.New(refusal.Failed, "install the package fio", "fio is missing, which makes the load")
	}
	run, err := process.TempDir("disk-99999.sock.d/control.sock")
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(run)) }()
	at, err := realSite(o.Dir, run)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, at.end()) }()
	// Three disks to read from, or one with what was made of it; and what a large map and the writes meanwhile take.
	if err := at.begin(5*o.Size + 2<<30); err != nil {
		return report, err
	}
	s := &strata{o: o, at: at, total: o.Rounds*(1+len(layerColumns)*(len(depths)+1)+1) + 2}
	server, err := startOurs(ctx, at)
	if err != nil {
		return report, err
	}
	defer func() {
		ctx, cancel := after(ctx)
		defer cancel()
		server.close(ctx)
	}()
	s.ours = server.(*ours)
	return s.measure(ctx)
}

func (s *strata) measure(ctx context.Context) (r LayersReport, err error) {
	r = LayersReport{Machine: thisMachine(), Version: ownVersion(), FileSystem: s.at.FileSystem, Dir: s.at.Dir, Rounds: s.o.Rounds, Size: s.o.Size}
	if r.Snapshot, err = s.stall(ctx); err != nil {
		return r, err
	}
	if r.Reads, err = s.reads(ctx); err != nil {
		return r, err
	}
	if r.Writes, err = s.writes(ctx); err != nil {
		return r, err
	}
	r.Copies, err = s.copies(ctx)
	return r, err
}

func (s *strata) step() {
	s.done++
	s.o.Progress(s.done, s.total)
}

// name is one that was not used before.
func (s *strata) name(what string) string {
	s.names++
	return fmt.Sprintf("%s-%d", what, s.names)
}

// create makes an encrypted disk.
func (s *strata) create(ctx context.Context, size int64) (control.Disk, error) {
	encrypted := true
	return s.client.DiskCreate(ctx, control.DiskCreate{Name: s.name("disk"), Size: size, Encrypted: &encrypted})
}

// filled makes a disk, attaches it, and writes to all of it.
func (s *strata) filled(ctx context.Context) (disk, uri string, err error) {
	d, err := s.create(ctx, s.o.Size)
	if err != nil {
		return "", "", err
	}
	a, err := s.client.Attach(ctx, d.Name, control.Attach{})
	if err != nil {
		return "", "", err
	}
	return d.Name, a.URI, fill(ctx, a.URI, s.o.Size)
}

// away detaches a disk and deletes it with its snapshots.
func (s *strata) away(ctx context.Context, disk string) error {
	if _, err := s.client.Detach(ctx, disk, true); err != nil {
		return err
	}
	return s.client.DiskDelete(ctx, disk, true)
}

func (s *strata) snapshot(ctx context.Context, disk string) error {
	return s.command(ctx, "snapshot", "create", disk, s.name("point"))
}

// load runs a column on one connection, and tells its speed.
func (s *strata) load(ctx context.Context, c column, uri string, round int) (float64, error) {
	if err := s.at.settle(); err != nil {
		return 0, err
	}
	d, err := c.load(ctx, uri, 1, turn{length: time.Duration(s.o.Seconds * float64(time.Second)), size: s.o.Size, seed: uint64(round)})
	if err != nil {
		return 0, err
	}
	return float64(d.bytes) / d.took.Seconds(), nil
}
