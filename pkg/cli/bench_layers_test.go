package cli

import (
	"strings"
	"testing"

	"nbdcrypt/pkg/bench/iobench"
)

func TestBenchLayersTable(t *testing.T) {
	var out strings.Builder
	share := iobench.Share{What: "randread-4k", BytesPerSecond: 0.36e9, Beside: 0.4e9, Ratio: iobench.Spread{Median: 0.9, Min: 0.85, Max: 1.02}, Goal: 0.9, Met: true}
	read := share
	read.Layers = 8
	slow := iobench.Share{What: "backup", BytesPerSecond: 0.7e9, Beside: 1e9, Ratio: iobench.Spread{Median: 0.7, Min: 0.6, Max: 0.8}, Goal: 0.8}
	printBenchLayers(&out, iobench.LayersReport{
		Machine: iobench.Machine{Processor: "AMD EPYC", Processors: 2, Memory: 24 << 30, Kernel: "6.18"}, Version: "v1", FileSystem: "ext4", Dir: "/tmp",
		Rounds: 5, Size: 512 << 20,
		Snapshot: iobench.Stall{Disk: 1 << 40, Written: 100 << 30, Calm: iobench.Delay{Median: 0.002, Min: 0.001, Max: 0.02, Met: true},
			Longest: iobench.Delay{Median: 0.0104, Min: 0.002, Max: 0.07, Met: true}, Sync: iobench.Delay{Median: 0.0004, Min: 0.0003, Max: 0.001, Met: true},
			Beyond: iobench.Delay{Median: 0.01, Min: 0.001, Max: 0.069, Limit: 0.05, Met: true}, Command: iobench.Delay{Median: 0.05, Min: 0.04, Max: 0.1, Met: true}},
		Reads: []iobench.Share{read}, Writes: []iobench.Share{share}, Copies: []iobench.Share{slow},
	})
	want := `AMD EPYC, 2 processors, 24 GiB, Linux 6.18
nbdcrypt v1, encrypted disks of 512 MiB on ext4 at /tmp, medians of 5 rounds

snapshots of a disk of 1 TiB with 100 GiB written, while 4 KiB are written

TIME OF                MEDIAN    LEAST     GREATEST   LIMIT     WITHIN
longest answer before  2.00 ms   1.00 ms   20.00 ms   -         -
one sync meanwhile     0.40 ms   0.30 ms   1.00 ms    -         -
longest answer         10.40 ms  2.00 ms   70.00 ms   -         -
that beyond one sync   10.00 ms  1.00 ms   69.00 ms   50.00 ms  yes
the command            50.00 ms  40.00 ms  100.00 ms  -         -

WHAT                           GB/s  BESIDE       GB/s  RATIO  LEAST  GREATEST  GOAL  REACHED
randread-4k, 8 layers          0.36  1 layer      0.40  0.90   0.85   1.02      0.90  yes
randread-4k, after a snapshot  0.36  before       0.40  0.90   0.85   1.02      0.90  yes
backup                         0.70  cp and sync  1.00  0.70   0.60   0.80      0.80  no
`
	if out.String() != want {
		t.Errorf("%s\nwant\n%s", &out, want)
	}
}

func TestBenchLayersMistakes(t *testing.T) {
	for line, want := range map[string]string{
		"--rounds 8":               "--rounds 8: it takes one at least, and 7 at most",
		"--seconds 0":              "--seconds 0: it takes 0.1 at least",
		"--size 1M":                "--size 1 MiB: it takes 16 MiB at least",
		"--disk 1G --written 2G":   "--written 2 GiB: it takes 1 MiB at least, and no more than --disk",
		"--written 1":              "not a multiple",
		"--disk 1G --written 1G x": `"x" is one argument too many`,
	} {
		if got := try(t, "/r", "", append([]string{"bench", "layers"}, strings.Fields(line)...)...); got.code != 2 || got.out != "" || !strings.Contains(got.err, want) {
			t.Errorf("%s: %+v", line, got)
		}
	}
}
