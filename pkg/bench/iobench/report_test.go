package iobench

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// sampled is a round with so many bytes in a second, and so much processor time for them.
func sampled(bytes int64, cpu float64) Sample {
	return Sample{Bytes: bytes, Ops: bytes / 4096, Seconds: 1, CPUSeconds: cpu}
}

func failed() Sample { return Sample{Failed: "it is gone"} }

func TestResult(t *testing.T) {
	got := result("x", []Sample{sampled(2<<30, 1), sampled(4<<30, 1), failed(), sampled(1<<30, 3)})
	if got.BytesPerSecond != 2<<30 || got.OpsPerSecond != 2<<30/4096 || got.CPUPerGiB != 0.5 || got.CPUPerOps != 0.191 {
		t.Errorf("%+v", got)
	}
	if got.Failures != 1 || got.Failed != "it is gone" || len(got.Rounds) != 4 {
		t.Errorf("%+v", got)
	}
	if got := result("x", []Sample{failed(), failed()}); got.BytesPerSecond != 0 || got.Failures != 2 {
		t.Errorf("%+v", got)
	}
	copied := Sample{Bytes: 1 << 30, Seconds: 1, CPUSeconds: 1} // nbdcopy tells no operations
	if got := result("x", []Sample{copied}); got.OpsPerSecond != 0 || got.CPUPerOps != 0 || got.CPUPerGiB != 1 {
		t.Errorf("%+v", got)
	}
}

// TestCompare: a ratio is one of a round, in which the machine was as fast for both.
func TestCompare(t *testing.T) {
	ours := []Sample{sampled(300, 0), sampled(60, 0), failed(), sampled(40, 0)}
	theirs := []Sample{sampled(100, 0), sampled(30, 0), sampled(1, 0), sampled(40, 0)}
	if got, some := compare(ours, theirs); !some || got != (Ratio{Median: 2, Min: 1, Max: 3}) {
		t.Errorf("%+v, %v", got, some)
	}
	if got, some := compare([]Sample{failed()}, theirs); some {
		t.Errorf("%+v", got)
	}
	if got, some := compare(nil, nil); some {
		t.Errorf("%+v", got)
	}
}

// TestRotated: each is first in one round, and has each place in as many.
func TestRotated(t *testing.T) {
	list := []string{"a", "b", "c"}
	for round, want := range []string{"abc", "bca", "cab", "abc"} {
		if got := strings.Join(rotated(list, round), ""); got != want {
			t.Errorf("round %d: %s, want %s", round, got, want)
		}
	}
	if !slices.Equal(list, []string{"a", "b", "c"}) {
		t.Error(list)
	}
}

func measuredRow(name string, connections int, ours, plain Sample) *row {
	c := named(name)
	return &row{site: &site{Name: inMemory}, column: c, connections: connections, samples: map[string][]Sample{ourselves: {ours}, nbdkitPlain: {plain}}}
}

func TestVerdicts(t *testing.T) {
	cipher := Cipher{Encrypt: 0.07, Decrypt: 0.1}
	both := []contestant{us(), {name: nbdkitPlain}}
	rows := []Row{
		measuredRow("read-1m", 1, sampled(1<<30, 0.72), sampled(1<<30, 0.5)).report(both),
		measuredRow("read-1m", 8, sampled(1<<30, 0.73), sampled(1<<30, 0.5)).report(both),
		measuredRow("write-1m", 1, sampled(1<<30, 0.69), sampled(1<<30, 0.5)).report(both),
		measuredRow("randread-4k", 1, sampled(1<<30, 0.1), sampled(1<<30, 0.5)).report(both),
		measuredRow("nbdcopy", 1, sampled(1<<30, 0.1), failed()).report(both),
	}
	got := verdicts(rows, cipher)
	want := []CPUVerdict{
		{inMemory, "read-1m", 1, 0.72, 0.5, 0.1, 0.72, true},
		{inMemory, "read-1m", 8, 0.73, 0.5, 0.1, 0.72, false},
		{inMemory, "write-1m", 1, 0.69, 0.5, 0.07, 0.684, false},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}

// TestRowReport: results stand in the order of the servers, ratios are to peers only and know the goal.
func TestRowReport(t *testing.T) {
	got := measuredRow("randread-4k", 1, sampled(120, 0), sampled(100, 0)).report([]contestant{us(), {name: goNBD}, {name: nbdkitPlain}})
	if names := names(got.Results, func(r Result) string { return r.Server }); !slices.Equal(names, []string{ourselves, goNBD, nbdkitPlain}) {
		t.Errorf("%q", names)
	}
	if len(got.Ratios) != 1 || got.Ratios[0] != (Ratio{nbdkitPlain, 1.2, 1.2, 1.2, 1.3}) || got.Ratios[0].Met() {
		t.Errorf("%+v", got.Ratios)
	}
	text, err := json.Marshal(measuredRow("nbdcopy", 2, failed(), failed()).report([]contestant{us()}))
	want := `{"site":"memory","column":"nbdcopy","about":"nbdcopy to null:","connections":2,"results":[{"server":"nbdcrypt","bytes_per_second":0,` +
		`"ops_per_second":0,"cpu_seconds_per_gib":0,"cpu_seconds_per_100k_ops":0,"failed":"it is gone","failures":1,` +
		`"rounds":[{"bytes":0,"ops":0,"seconds":0,"cpu_seconds":0,"failed":"it is gone"}]}],"ratios":[]}`
	if err != nil || string(text) != want {
		t.Errorf("%s, %v", text, err)
	}
}

// TestGoals: they are about servers that there are.
func TestGoals(t *testing.T) {
	for _, c := range columns() {
		for name := range c.goal {
			if !slices.Contains(Peers(), name) {
				t.Errorf("%s has a goal against %s", c.name, name)
			}
		}
	}
}
