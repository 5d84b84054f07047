package iobench

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"nbdcrypt/pkg/process"
	"nbdcrypt/pkg/refusal"
)

// session is one run of the benchmark.
type session struct {
	o           Options
	run         string // a directory for sockets, with a short path
	sites       []*site
	columns     []column
	contestants []contestant
	missing     []Missing
	rows        []*row
	done        int
}

// turn is what every contestant gets the same of.
type turn struct {
	length time.Duration
	size   int64
	seed   uint64
}

// row is one column with one number of connections at one site.
type row struct {
	site        *site
	column      column
	connections int
	samples     map[string][]Sample // by contestant, one for each round
}

// stand is a contestant at a site, with the disk that all but first writes are measured on.
type stand struct {
	contestant
	server server
	full   *export
	failed error // why there is none
}

func newSession(ctx context.Context, o Options) (*session, error) {
	fio := tool{"fio", "fio"}
	if fio.missing() {
		return nil, refusal.New(refusal.Failed, "install the package fio", "fio is missing, which makes the load")
	}
	if _, err := run(ctx, patience, "fio", "--enghelp=nbd"); err != nil {
		return nil, refusal.New(refusal.Failed, "install a fio that was built with libnbd, as Debian's is", "this fio has no engine for NBD: %w", err)
	}
	s := &session{o: o, contestants: []contestant{us()}}
	s.columns = chosen(columns(), func(c column) string { return c.name }, o.Only)
	if copies := lacks("nbdcopy", []tool{{"nbdcopy", "libnbd-bin"}}); len(copies) > 0 {
		s.columns = slices.DeleteFunc(s.columns, func(c column) bool { return c.kind == byCopy })
		s.missing = append(s.missing, copies...)
	}
	for _, peer := range chosen(peers(), contestant.called, o.Peers) {
		if lacking := lacks(peer.name, peer.tools); len(lacking) > 0 {
			s.missing = append(s.missing, lacking...)
			continue
		}
		s.contestants = append(s.contestants, peer)
	}
	var err error
	if s.run, err = process.TempDir("memory-99999.sock.d/control.sock"); err != nil {
		return nil, err
	}
	sites, missing, err := findSites(o.Dir, s.run)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.run))
	}
	s.sites, s.missing = sites, append(s.missing, missing...)
	return s, nil
}

// measure goes through all rounds at one site after the other.
func (s *session) measure(ctx context.Context) error {
	for _, at := range s.sites {
		if err := s.measureAt(ctx, at); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) measureAt(ctx context.Context, at *site) (err error) {
	// What is there at once: a disk of each contestant, one that is written first, and metadata.
	defer func() { err = errors.Join(err, at.end()) }()
	if err := at.begin(s.o.Size*int64(len(s.contestants)+1) + 256<<20); err != nil {
		return err
	}
	stands := s.open(ctx, at)
	defer func() {
		ctx, cancel := after(ctx)
		defer cancel()
		for _, st := range stands {
			st.close(ctx)
		}
	}()
	rows := s.rowsAt(at)
	s.rows = append(s.rows, rows...)
	for round := range s.o.Rounds {
		for i, r := range rows {
			for _, st := range rotated(stands, round+i) {
				if err := ctx.Err(); err != nil {
					return err
				}
				r.samples[st.name] = append(r.samples[st.name], s.sample(ctx, r, st, round))
				s.done++
				s.o.Progress(s.done, s.total())
			}
		}
	}
	return nil
}

// total is how many measurements there are.
func (s *session) total() int {
	return len(s.sites) * s.o.Rounds * len(s.columns) * len(s.o.Connections) * len(s.contestants)
}

func (s *session) rowsAt(at *site) (rows []*row) {
	for _, c := range s.columns {
		for _, n := range s.o.Connections {
			rows = append(rows, &row{site: at, column: c, connections: n, samples: map[string][]Sample{}})
		}
	}
	return rows
}

// rotated begins with another one each turn, so that none has always the same one before it, or always the first turn after a pause.
func rotated[T any](list []T, round int) []T {
	n := round % len(list)
	return append(slices.Clone(list[n:]), list[:n]...)
}

// open starts every contestant, with a disk full of data.
func (s *session) open(ctx context.Context, at *site) (stands []*stand) {
	for _, c := range s.contestants {
		st := &stand{contestant: c}
		if st.server, st.failed = c.start(ctx, at); st.failed == nil {
			st.full, st.failed = st.server.disk(ctx, s.o.Size)
		}
		if st.failed == nil {
			st.failed = fill(ctx, st.full.uri, s.o.Size)
		}
		stands = append(stands, st)
	}
	return stands
}

func (st *stand) close(ctx context.Context) {
	if st.full != nil {
		st.full.close(ctx)
	}
	if st.server != nil {
		st.server.close(ctx)
	}
}

// sample measures a contestant once. What goes wrong is its result.
func (s *session) sample(ctx context.Context, r *row, st *stand, round int) Sample {
	if st.failed != nil {
		return Sample{Failed: st.failed.Error()}
	}
	e := st.full
	if r.column.empty {
		fresh, err := st.server.disk(ctx, s.o.Size)
		if err != nil {
			return Sample{Failed: err.Error()}
		}
		defer func() {
			ctx, cancel := after(ctx)
			defer cancel()
			fresh.close(ctx)
		}()
		e = fresh
	}
	t := turn{length: time.Duration(s.o.Seconds * float64(time.Second)), size: s.o.Size, seed: uint64(round)}
	sample, err := e.measure(ctx, r, t)
	if gone := e.ended(); gone != nil {
		err = gone
	}
	if err != nil {
		return Sample{Failed: err.Error()}
	}
	return sample
}

// measure loads an export, and looks at what its server takes meanwhile.
func (e *export) measure(ctx context.Context, r *row, t turn) (Sample, error) {
	if why := e.flags.refuses(r.column); why != "" {
		return Sample{}, errors.New(why)
	}
	if err := r.site.settle(); err != nil {
		return Sample{}, err
	}
	before, err := cpuTime(e.pid)
	if err != nil {
		return Sample{}, err
	}
	d, err := r.column.load(ctx, e.uri, r.connections, t)
	if err != nil {
		return Sample{}, err
	}
	now, err := cpuTime(e.pid)
	return newSample(d, now-before), err
}

func (c column) load(ctx context.Context, uri string, connections int, t turn) (done, error) {
	switch c.kind {
	case byCopy:
		return nbdcopy(ctx, uri, connections, t)
	case byFUA:
		return fua(ctx, c, uri, connections, t)
	}
	return fio(ctx, c, uri, connections, t)
}
