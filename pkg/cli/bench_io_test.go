package cli

import (
	"strings"
	"testing"

	"nbdcrypt/pkg/bench/iobench"
)

func ioReport() iobench.Report {
	sample := []iobench.Sample{{Bytes: 4096, Ops: 1, Seconds: 1}, {Failed: "it has no flush"}}
	return iobench.Report{
		Machine: iobench.Machine{Processor: "AMD EPYC", Processors: 2, Memory: 24 << 30, Kernel: "6.18"},
		Servers: []iobench.Version{{Name: "nbdcrypt", About: "nbdcrypt serve", Version: "v1"}, {Name: "nbdkit", About: "nbdkit, plain file", Version: "1.32"}},
		Tools:   []iobench.Version{{Name: "fio", Version: "fio-3.33"}},
		Missing: []iobench.Missing{{What: "qemu-luks", Tool: "qemu-nbd", Package: "qemu-utils"}, {What: "memory", Tool: "a tmpfs at /dev/shm"}},
		Rounds:  2, Seconds: 0.5, Size: 64 << 20,
		Rows: []iobench.Row{
			{Site: "disk", Column: "randread-4k", About: "random read 4 KiB ×32", Connections: 1,
				Results: []iobench.Result{{Server: "nbdcrypt", BytesPerSecond: 4e8, OpsPerSecond: 100_400, CPUPerOps: 0.6, Rounds: sample},
					{Server: "nbdkit", BytesPerSecond: 3e8, OpsPerSecond: 75_000, CPUPerOps: 1.234, Failures: 1, Failed: "it is gone", Rounds: sample}},
				Ratios: []iobench.Ratio{{Peer: "nbdkit", Median: 1.25, Min: 1, Max: 2, Goal: 1.3}}},
			{Site: "disk", Column: "fsync-16", About: "with flushes", Connections: 8,
				Results: []iobench.Result{{Server: "nbdcrypt", BytesPerSecond: 4e8, OpsPerSecond: 1000, CPUPerOps: 3, Rounds: sample},
					{Server: "nbdkit", Failures: 2, Failed: "it has no flush", Rounds: sample}}},
		},
		Cipher: iobench.Cipher{Impl: "avx512"},
		CPU:    []iobench.CPUVerdict{{Site: "disk", Column: "read-1m", Connections: 1, Ours: 0.5, Plain: 0.4, Cipher: 0.07, Limit: 0.564, Met: true}},
	}
}

// TestBenchIOTable: medians, ratios with what they should be, dashes and marks for what failed, and why it did.
func TestBenchIOTable(t *testing.T) {
	var out strings.Builder
	report := ioReport()
	printBenchOn(&out, report)
	printServers(&out, report, "SPEED", report.Rows, speed)
	printRatios(&out, report, report.Rows)
	printServers(&out, report, "TIME", report.Rows, processorTime)
	printFailures(&out, report.Rows)
	printCPU(&out, report)
	want := `AMD EPYC, 2 processors, 24 GiB, Linux 6.18
nbdcrypt  nbdcrypt serve      v1
nbdkit    nbdkit, plain file  1.32
fio                           fio-3.33
qemu-luks was not measured: qemu-nbd is missing, install the package qemu-utils
memory was not measured: a tmpfs at /dev/shm is missing
disks of 64 MiB, medians of 2 rounds of 0.5 s
SPEED                  CONNECTIONS  nbdcrypt   nbdkit
random read 4 KiB ×32  1            100.4 k/s  75.0 k/s *
with flushes           8            1.0 k/s    -
OUR SPEED AS A MULTIPLE OF  CONNECTIONS  nbdkit
random read 4 KiB ×32       1            1.25 (1.00..2.00) <1.3
with flushes                8            -
medians of the rounds' ratios, with the least and the greatest; behind <, what the project wants and this is not
TIME                   CONNECTIONS  nbdcrypt     nbdkit
random read 4 KiB ×32  1            0.60 s/100k  1.23 s/100k *
with flushes           8            3.00 s/100k  -

* nbdkit: it is gone
  in the rounds of randread-4k ×1, 1 of 2

* nbdkit: it has no flush
  in the rounds of fsync-16 ×8, 2 of 2

processor time in seconds per GiB, beside nbdkit's for a plain file and the cipher's own (avx512); within their sum and 20 %?

SITE  COLUMN   CONNECTIONS  OURS   NBDKIT  CIPHER  LIMIT  WITHIN
disk  read-1m  1            0.500  0.400   0.070   0.564  yes
`
	if out.String() != want {
		t.Errorf("%s\nwant\n%s", &out, want)
	}
}

func TestBenchIOMistakes(t *testing.T) {
	for line, want := range map[string]string{
		"--only read-2m":          `--only "read-2m" is none of the columns: read-1m, `,
		"--peers nbdkit,samba":    `--peers "samba" is none of the peers: qemu-luks, nbdkit-luks, nbdkit, go-nbd`,
		"--connections 0":         "--connections 0: it takes 1 to 64",
		"--connections 1,65":      "--connections 65: it takes 1 to 64",
		"--rounds 0":              "--rounds 0: it takes one at least",
		"--seconds 0.05":          "--seconds 0.05: it takes 0.1 to 3600",
		"--seconds NaN":           "--seconds NaN: it takes 0.1 to 3600",
		"--size 63M":              "--size 63 MiB is less than 64 MiB",
		"--size 67108865":         "not a multiple",
		"--size 0":                "--size 0",
		"--dir /none/such --size": "flag needs an argument",
		"x":                       `"x" is one argument too many`,
	} {
		if got := try(t, "/r", "", append([]string{"bench", "io"}, strings.Fields(line)...)...); got.code != 2 || got.out != "" || !strings.Contains(got.err, want) {
			t.Errorf("%s: %+v", line, got)
		}
	}
}

func TestBenchIOCompletion(t *testing.T) {
	if got, want := completions(t, "/r", "bench", "io", "--only", ""), strings.Join(iobench.Columns(), " "); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := completions(t, "/r", "bench", "io", "--peers", ""); got != strings.Join(iobench.Peers(), " ")+" none" {
		t.Errorf("%q", got)
	}
}

// TestBenchIONeedsFio: without what makes the load there is nothing to measure, and it is said what to install.
func TestBenchIONeedsFio(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if got := try(t, "/r", "", "bench", "io"); got.code != 1 || got.out != "" || !strings.Contains(got.err, "fio is missing") || !strings.Contains(got.err, "→ install the package fio") {
		t.Errorf("%+v", got)
	}
}

func TestBenchScaleTable(t *testing.T) {
	var out strings.Builder
	printBenchScale(&out, iobench.ScaleReport{
		Machine: iobench.Machine{Processor: "AMD EPYC", Processors: 1, Memory: 24 << 30, Kernel: "6.18"}, Version: "v1", FileSystem: "ext4", Dir: "/tmp", Size: 1 << 30,
		Attachment: iobench.Footprint{Number: 1000, Resident: 22 << 10, Go: 20 << 10, Limit: 64 << 10, Met: true},
		Connection: iobench.Footprint{Number: 500, Resident: 40 << 10, Go: 8 << 10, Limit: 32 << 10},
		Sync:       iobench.Delay{Median: 0.0004, Min: 0.0003, Max: 0.006, Met: true},
		Attach:     iobench.Delay{Median: 0.003, Min: 0.001, Max: 0.023, Limit: 0.0054, Met: true},
		Detach:     iobench.Delay{Median: 0.006, Min: 0.001, Max: 0.023, Limit: 0.0054},
		Stored: iobench.Stored{Disks: 100_000, Keys: 10_000, Projects: 100, Start: iobench.Delay{Median: 0.9, Min: 0.8, Max: 1.2, Limit: 1, Met: true},
			ListJSON: iobench.Delay{Median: 1.5, Min: 1.2, Max: 2.1, Limit: 1}},
	})
	want := `AMD EPYC, 1 processor, 24 GiB, Linux 6.18
nbdcrypt v1, encrypted disks of 1 GiB on ext4 at /tmp

MEMORY OF EACH IDLE  NUMBER  RESIDENT  OF IT GO'S  LIMIT   WITHIN
attached disk        1000    22 KiB    20 KiB      64 KiB  yes
connection           500     40 KiB    8 KiB       32 KiB  no

with 1000 disks attached

TIME OF    MEDIAN   LEAST    GREATEST  LIMIT    WITHIN
two syncs  0.40 ms  0.30 ms  6.00 ms   -        -
attach     3.00 ms  1.00 ms  23.00 ms  5.40 ms  yes
detach     6.00 ms  1.00 ms  23.00 ms  5.40 ms  no

with 100000 disks and 10000 keys in 100 projects in the catalog

TIME OF                     MEDIAN      LEAST       GREATEST    LIMIT       WITHIN
start                       900.00 ms   800.00 ms   1200.00 ms  1000.00 ms  yes
start after a kill          0.00 ms     0.00 ms     0.00 ms     -           -
disk list                   0.00 ms     0.00 ms     0.00 ms     -           -
disk list --json            1500.00 ms  1200.00 ms  2100.00 ms  1000.00 ms  no
key uses, nearly all disks  0.00 ms     0.00 ms     0.00 ms     -           -
key uses, ten disks         0.00 ms     0.00 ms     0.00 ms     -           -
two syncs                   0.00 ms     0.00 ms     0.00 ms     -           -
attach                      0.00 ms     0.00 ms     0.00 ms     -           -
`
	if out.String() != want {
		t.Errorf("%s\nwant\n%s", &out, want)
	}
}

func TestBenchScaleMistakes(t *testing.T) {
	for line, want := range map[string]string{
		"--disks 0":        "--disks 0 --connections 500 --stored-disks 100000 --stored-keys 10000: it takes one of each at least",
		"--connections 0":  "--disks 1000 --connections 0 --stored",
		"--stored-disks 0": "--stored-disks 0 --stored-keys 10000: it takes one of each at least",
		"--stored-keys 0":  "--stored-disks 100000 --stored-keys 0: it takes one of each at least",
		"--size 1":         "not a multiple",
		"x":                `"x" is one argument too many`,
	} {
		if got := try(t, "/r", "", append([]string{"bench", "scale"}, strings.Fields(line)...)...); got.code != 2 || got.out != "" || !strings.Contains(got.err, want) {
			t.Errorf("%s: %+v", line, got)
		}
	}
}
