//go:build integration

package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"nbdcrypt/pkg/bench/iobench"
)

// benchmark is `bench` with all that it makes on disk below dir.
func benchmark(t *testing.T, dir string, args ...string) (cmd *exec.Cmd, out, errs *bytes.Buffer) {
	t.Helper()
	out, errs = new(bytes.Buffer), new(bytes.Buffer)
	cmd = exec.Command(program, append([]string{"bench"}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	cmd.Stdout, cmd.Stderr = out, errs
	return cmd, out, errs
}

// nothingLeft tells of what a benchmark that has ended left behind.
func nothingLeft(t *testing.T, dir string, pid int) {
	t.Helper()
	left, err := filepath.Glob(fmt.Sprintf("/dev/shm/nbdcrypt-bench-%d-*", pid))
	check(t, err)
	inDir, err := os.ReadDir(dir)
	check(t, err)
	for _, e := range inDir {
		left = append(left, e.Name())
	}
	// Children have a working directory, or a word of their command line, that names what was there.
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		if line, err := os.ReadFile(path); err == nil && (bytes.Contains(line, []byte(dir)) || bytes.Contains(line, fmt.Appendf(nil, "nbdcrypt-bench-%d-", pid))) {
			left = append(left, string(line))
		}
	}
	if len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestBenchIO measures everything once, shortly, against one peer, and looks at the report's shape.
func TestBenchIO(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	cmd, out, errs := benchmark(t, dir, "io", "--seconds", "0.1", "--rounds", "1", "--size", "64M", "--peers", "nbdkit", "--dir", dir, "--json")
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, errs)
	}
	nothingLeft(t, dir, cmd.Process.Pid)
	var r iobench.Report
	check(t, json.Unmarshal(out.Bytes(), &r))
	sites := 2
	if len(r.Missing) > 0 { // no tmpfs here
		sites = 1
	}
	if len(r.Sites) != sites || len(r.Rows) != sites*len(iobench.Columns())*2 || len(r.Servers) != 2 || r.Rounds != 1 || r.Size != 64<<20 {
		t.Fatalf("%d sites, %d rows, %+v", len(r.Sites), len(r.Rows), r.Servers)
	}
	for _, row := range r.Rows {
		if len(row.Results) != 2 || row.Results[0].Server != "nbdcrypt" || row.Results[1].Server != "nbdkit" || len(row.Ratios) != 1 {
			t.Errorf("%+v", row)
			continue
		}
		for _, one := range row.Results {
			if one.Failures > 0 || one.BytesPerSecond <= 0 || len(one.Rounds) != 1 || one.Rounds[0].Seconds <= 0 {
				t.Errorf("%s ×%d at %s: %+v", row.Column, row.Connections, row.Site, one)
			}
		}
		if r := row.Ratios[0]; r.Peer != "nbdkit" || r.Median <= 0 || r.Min != r.Median || r.Max != r.Median {
			t.Errorf("%+v", r)
		}
	}
	if r.Cipher.Encrypt <= 0 || r.Cipher.Decrypt <= 0 || len(r.CPU) != sites*2*4 { // read, write, copy, first write
		t.Errorf("%+v, %+v", r.Cipher, r.CPU)
	}
	if r.Machine.Kernel == "" || !slices.ContainsFunc(r.Tools, func(v iobench.Version) bool { return strings.HasPrefix(v.Version, "fio-") }) {
		t.Errorf("%+v, %+v", r.Machine, r.Tools)
	}
}

// TestBenchIOPeers: every peer can be started, filled and measured.
func TestBenchIOPeers(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	cmd, out, errs := benchmark(t, dir, "io", "--only", "randread-4k", "--seconds", "0.1", "--rounds", "1", "--size", "64M", "--connections", "2", "--dir", dir, "--json")
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, errs)
	}
	var r iobench.Report
	check(t, json.Unmarshal(out.Bytes(), &r))
	for _, row := range r.Rows {
		for i, name := range append([]string{"nbdcrypt"}, iobench.Peers()...) {
			if one := row.Results[i]; one.Server != name || one.Failures > 0 || one.OpsPerSecond <= 0 {
				t.Errorf("%s: %+v", name, one)
			}
		}
	}
}

// TestBenchInterrupted: an interrupt ends a benchmark with a word and without a result, and nothing is left of it. A second one changes nothing.
func TestBenchInterrupted(t *testing.T) {
	for _, what := range []string{"io", "layers", "scale"} {
		for _, late := range []time.Duration{300 * time.Millisecond, 3 * time.Second} {
			t.Run(fmt.Sprint(what, late), func(t *testing.T) {
				t.Parallel()
				interruptBench(t, what, late)
			})
		}
	}
}

func interruptBench(t *testing.T, what string, late time.Duration) {
	t.Helper()
	dir := tempDir(t)
	args := []string{what, "--dir", dir}
	if what == "layers" {
		args = append(args, "--disk=16G", "--written=1G")
	}
	cmd, out, errs := benchmark(t, dir, args...)
	check(t, cmd.Start())
	time.Sleep(late) // anywhere: that it ends well wherever it is, is what is tested
	check(t, cmd.Process.Signal(os.Interrupt))
	check(t, cmd.Process.Signal(os.Interrupt))
	stuck := time.AfterFunc(patience, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 || out.Len() > 0 || !strings.HasSuffix(errs.String(), "nbdcrypt: bench: interrupted\n") {
		t.Errorf("%s after %v: %v\n%s%s", what, late, err, out, errs)
	}
	stuck.Stop()
	nothingLeft(t, dir, cmd.Process.Pid)
}

// TestBenchLayers: the report's shape, with little of everything.
func TestBenchLayers(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	cmd, out, errs := benchmark(t, dir, "layers", "--rounds", "1", "--seconds", "0.1", "--size", "16M", "--disk", "16G", "--written", "1G", "--dir", dir, "--json")
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, errs)
	}
	nothingLeft(t, dir, cmd.Process.Pid)
	var r iobench.LayersReport
	check(t, json.Unmarshal(out.Bytes(), &r))
	if r.Rounds != 1 || r.Size != 16<<20 || len(r.Reads) != 4 || len(r.Writes) != 2 || len(r.Copies) != 2 {
		t.Errorf("%+v", r)
	}
	for _, s := range slices.Concat(r.Reads, r.Writes, r.Copies) {
		if s.BytesPerSecond <= 0 || s.Beside <= 0 || s.Ratio.Median <= 0 || s.Ratio.Min != s.Ratio.Max || s.Goal == 0 || s.Met != (s.Ratio.Median >= s.Goal) {
			t.Errorf("%+v", s)
		}
	}
	s := r.Snapshot
	if s.Disk != 16<<30 || s.Written != 1<<30 || s.Beyond.Limit != 0.05 || s.Beyond.Met != (s.Beyond.Median < 0.05) {
		t.Errorf("%+v", s)
	}
	for _, d := range []iobench.Delay{s.Calm, s.Longest, s.Sync, s.Command} {
		if d.Median <= 0 || d.Min > d.Median || d.Max < d.Median {
			t.Errorf("%+v", d)
		}
	}
}

// TestBenchScale: the report's shape, with few of everything.
func TestBenchScale(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	cmd, out, errs := benchmark(t, dir, "scale", "--disks", "20", "--connections", "20", "--stored-disks", "300", "--stored-keys", "30", "--dir", dir, "--json")
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, errs)
	}
	nothingLeft(t, dir, cmd.Process.Pid)
	var r iobench.ScaleReport
	check(t, json.Unmarshal(out.Bytes(), &r))
	if r.Attachment.Number != 20 || r.Connection.Number != 20 || r.Attachment.Limit != 64<<10 || r.Connection.Limit != 32<<10 {
		t.Errorf("%+v", r)
	}
	if s := r.Stored; s.Disks != 300 || s.Keys != 30 || s.Projects != 1 {
		t.Errorf("%+v", s)
	}
	for _, d := range []iobench.Delay{r.Sync, r.Attach, r.Detach, r.Stored.Start, r.Stored.Restart, r.Stored.List, r.Stored.ListJSON, r.Stored.UsesMany, r.Stored.UsesFew, r.Stored.Attach} {
		if d.Median <= 0 || d.Min > d.Median || d.Max < d.Median {
			t.Errorf("%+v", d)
		}
	}
	if limit := r.Sync.Median + 0.005; r.Attach.Limit != limit || r.Detach.Limit != limit || r.Attach.Met != (r.Attach.Median < limit) {
		t.Errorf("%+v", r)
	}
}
