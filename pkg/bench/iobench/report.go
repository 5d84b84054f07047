package iobench

import (
	"context"
	"math"
	"slices"
	"time"

	"nbdcrypt/pkg/bench"
	"nbdcrypt/pkg/control"
)

// Report is what Run found: the JSON of docs/cli.md.
type Report struct {
	Machine Machine      `json:"machine"`
	Tools   []Version    `json:"tools"`
	Servers []Version    `json:"servers"` // ours first
	Missing []Missing    `json:"missing"`
	Rounds  int          `json:"rounds"`
	Seconds float64      `json:"seconds"`
	Size    int64        `json:"size"`
	Sites   []*site      `json:"sites"`
	Rows    []Row        `json:"rows"`
	Cipher  Cipher       `json:"cipher"`
	CPU     []CPUVerdict `json:"cpu"`
}

// Version tells which build of something was used.
type Version struct {
	Name    string `json:"name"`
	About   string `json:"about"`
	Version string `json:"version"`
}

// Row is one column with one number of connections at one site.
type Row struct {
	Site        string   `json:"site"`
	Column      string   `json:"column"`
	About       string   `json:"about"`
	Connections int      `json:"connections"`
	Results     []Result `json:"results"` // in the order of Servers
	Ratios      []Ratio  `json:"ratios"`  // ours to each peer
}

// Large tells that bytes a second say more than operations a second.
func (r Row) Large() bool { return named(r.Column).large() }

// Result is what one server did there. Its figures are medians of the rounds that did not fail, 0 where all did.
type Result struct {
	Server         string   `json:"server"`
	BytesPerSecond int64    `json:"bytes_per_second"`
	OpsPerSecond   int64    `json:"ops_per_second"`
	CPUPerGiB      float64  `json:"cpu_seconds_per_gib"`
	CPUPerOps      float64  `json:"cpu_seconds_per_100k_ops"`
	Failed         string   `json:"failed"` // why, of the last round that did; empty where none did
	Failures       int      `json:"failures"`
	Rounds         []Sample `json:"rounds"`
}

// Sample is one server in one round.
type Sample struct {
	Bytes      int64   `json:"bytes"`
	Ops        int64   `json:"ops"` // 0 where nobody counts them
	Seconds    float64 `json:"seconds"`
	CPUSeconds float64 `json:"cpu_seconds"`
	Failed     string  `json:"failed"`
}

// Ratio is our speed as a multiple of a peer's, of the rounds in which both have one.
type Ratio struct {
	Peer   string  `json:"peer"`
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	// Goal is what the project wants it to be at least, 0 where it wants nothing.
	Goal float64 `json:"goal"`
}

// Met tells whether the goal was reached.
func (r Ratio) Met() bool { return r.Median >= r.Goal }

func newSample(d done, cpu time.Duration) Sample {
	return Sample{Bytes: d.bytes, Ops: d.ops, Seconds: d.took.Seconds(), CPUSeconds: cpu.Seconds()}
}

// speed is what ratios are made of. Within a column it does not matter whether bytes or operations are counted.
func (s Sample) speed() float64 { return float64(s.Bytes) / s.Seconds }

// report makes the medians.
func (s *session) report(ctx context.Context) (Report, error) {
	r := Report{Machine: thisMachine(), Missing: control.List(s.missing), Rounds: s.o.Rounds, Seconds: s.o.Seconds, Size: s.o.Size, Sites: s.sites}
	for _, t := range []string{"fio", "nbdcopy"} {
		if !(tool{name: t}).missing() {
			r.Tools = append(r.Tools, Version{Name: t, Version: says(ctx, []string{t, "--version"})})
		}
	}
	for _, c := range s.contestants {
		r.Servers = append(r.Servers, c.which(ctx))
	}
	for _, one := range s.rows {
		r.Rows = append(r.Rows, one.report(s.contestants))
	}
	var err error
	if r.Cipher, err = cipherCost(ctx); err != nil {
		return Report{}, err
	}
	r.CPU = verdicts(r.Rows, r.Cipher)
	r.Tools, r.Rows, r.CPU = control.List(r.Tools), control.List(r.Rows), control.List(r.CPU)
	return r, nil
}

func (c contestant) which(ctx context.Context) Version {
	v := Version{Name: c.name, About: c.about}
	switch {
	case c.name == ourselves:
		v.Version = ownVersion()
	case c.name == goNBD:
		v.Version = moduleVersion("github.com/pojntfx/go-nbd")
	default:
		v.Version = says(ctx, c.version)
	}
	return v
}

func (r *row) report(contestants []contestant) Row {
	made := Row{Site: r.site.Name, Column: r.column.name, About: r.column.about, Connections: r.connections}
	for _, c := range contestants {
		made.Results = append(made.Results, result(c.name, r.samples[c.name]))
		if ratio, some := compare(r.samples[ourselves], r.samples[c.name]); some && c.name != ourselves {
			ratio.Peer, ratio.Goal = c.name, r.column.goal[c.name]
			made.Ratios = append(made.Ratios, ratio)
		}
	}
	made.Ratios = control.List(made.Ratios)
	return made
}

func result(name string, samples []Sample) Result {
	made := Result{Server: name, Rounds: samples}
	var bytes, ops, perGiB, perOps []float64
	for _, s := range samples {
		if s.Failed != "" {
			made.Failed = s.Failed
			made.Failures++
			continue
		}
		bytes = append(bytes, s.speed())
		perGiB = append(perGiB, s.CPUSeconds/(float64(s.Bytes)/(1<<30)))
		if s.Ops > 0 {
			ops = append(ops, float64(s.Ops)/s.Seconds)
			perOps = append(perOps, s.CPUSeconds/(float64(s.Ops)/1e5))
		}
	}
	made.BytesPerSecond, made.OpsPerSecond = int64(bench.Median(bytes)), int64(bench.Median(ops))
	made.CPUPerGiB, made.CPUPerOps = thousandths(bench.Median(perGiB)), thousandths(bench.Median(perOps))
	return made
}

// compare makes the ratios of two servers' rounds.
func compare(ours, theirs []Sample) (Ratio, bool) {
	var ratios []float64
	for i := range min(len(ours), len(theirs)) {
		if ours[i].Failed == "" && theirs[i].Failed == "" {
			ratios = append(ratios, ours[i].speed()/theirs[i].speed())
		}
	}
	if len(ratios) == 0 {
		return Ratio{}, false
	}
	return Ratio{Median: thousandths(bench.Median(ratios)), Min: thousandths(slices.Min(ratios)), Max: thousandths(slices.Max(ratios))}, true
}

func thousandths(x float64) float64 { return math.Round(x*1e3) / 1e3 }
