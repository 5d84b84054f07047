package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"nbdcrypt/pkg/bench"
)

func TestBenchTable(t *testing.T) {
	share := 0.9349
	report := bench.Report{
		Rows: []bench.Row{
			{Impl: "avx512", Op: "encrypt", SectorSize: 4096, RunBytes: 65536, BytesPerSecond: 15_512_345_678, OfCeiling: &share},
			{Impl: "generic", Op: "decrypt", SectorSize: 512, RunBytes: 512, BytesPerSecond: 150_000_000},
		},
		Ceilings: []bench.Ceiling{{Bits: 512, BytesPerSecond: 16_600_000_000}, {Bits: 128, BytesPerSecond: 8_300_000_000}},
	}
	var out strings.Builder
	printBench(&out, report, 15)
	want := `ceiling: 16.60 GB/s, AES-256 rounds alone on registers of 512 bits; 8.30 on 128
one core, medians of 15 rounds

IMPL     OP       SECTOR  RUN     GB/s   OF CEILING
avx512   encrypt  4096    64 KiB  15.51  0.93
generic  decrypt  512     512 B    0.15  -
`
	if out.String() != want {
		t.Errorf("%s\nwant\n%s", &out, want)
	}
	out.Reset()
	report.Ceilings = nil
	printBench(&out, report, 1)
	if want := "ceiling: none, because this processor or this build has no AES instructions\none core, medians of 1 round\n\n"; !strings.HasPrefix(out.String(), want) {
		t.Errorf("%s\nwant\n%s", &out, want)
	}
}

// TestBenchJSON: the array and nothing round it, of the implementations that were asked for.
func TestBenchJSON(t *testing.T) {
	got := try(t, "/r", "", "bench", "cipher", "--impl", "generic", "--rounds", "1", "--json")
	var rows []map[string]any
	if err := json.Unmarshal([]byte(got.out), &rows); err != nil || got.code != 0 || got.err != "" || len(rows) != 14 {
		t.Fatalf("%+v, %v", got, err)
	}
	for _, row := range rows {
		if len(row) != 6 || row["impl"] != "generic" || row["bytes_per_second"].(float64) <= 0 {
			t.Errorf("%v", row)
		}
	}
}

func TestBenchMistakes(t *testing.T) {
	known := strings.Join(bench.Implementations(), ", ")
	for _, c := range []struct{ line, want string }{
		{"bench cipher --impl sse", fmt.Sprintf("--impl %q is none that this processor and build can run: %s\n", "sse", known)},
		{"bench cipher --rounds 0", "--rounds 0: it takes one at least\n"},
		{"bench cipher aesni", `"aesni" is one argument too many`},
		{"bench", "bench needs one of: cipher, io, layers, scale\n"},
	} {
		if got := try(t, "/r", "", strings.Fields(c.line)...); got.code != 2 || got.out != "" || !strings.Contains(got.err, c.want) {
			t.Errorf("%s: %+v", c.line, got)
		}
	}
}

// TestBenchInterrupted: an interrupt ends it with a word and exit 1, and without half a table.
func TestBenchInterrupted(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	stop()
	var out, errs bytes.Buffer
	code := Main(ctx, []string{"bench", "cipher"}, strings.NewReader(""), &out, &errs, Hooks{Env: env("/r")})
	if code != 1 || out.Len() > 0 || errs.String() != "nbdcrypt: bench: interrupted\n" {
		t.Errorf("%d %s%s", code, &out, &errs)
	}
}

func TestBenchCompletion(t *testing.T) {
	if got, want := completions(t, "/r", "bench", "cipher", "--impl", ""), strings.Join(bench.Implementations(), " "); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
