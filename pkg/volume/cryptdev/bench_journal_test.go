package cryptdev_test

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/google/uuid"

	"nbdcrypt/pkg/volume/cryptdev"
	"nbdcrypt/pkg/volume/layer"
)

// BenchmarkJournal is what a journal costs: CPU of writes over data, which write nothing there, and of first writes in order, which each do, beside
// the same without a journal, in turns; medians in seconds per GiB, and how much more in percent. It lies in memory, as in /run.
func BenchmarkJournal(b *testing.B) {
	for _, fs := range []string{"none", "tmpfs", "disk"} {
		for _, n := range []int{4 << 10, 64 << 10, 1 << 20} {
			for _, first := range []bool{false, true} {
				name := map[bool]string{false: "over", true: "first"}[first]
				b.Run(fmt.Sprintf("%s/%s/%dK", fs, name, n>>10), func(b *testing.B) { benchJournal(b, fs, n, first) })
			}
		}
	}
}

func benchJournal(b *testing.B, fs string, n int, first bool) {
	dir, err := os.MkdirTemp("/dev/shm", "journal")
	if err != nil {
		b.Skip(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	journals, err := layer.OpenJournals(dir + "/journal/store")
	must(b, err)
	var devices [2]*cryptdev.Device
	for i, o := range []layer.Options{{}, {Journals: journals, Opening: uuid.New()}} {
		r := newRig(b, benchPool(b, fs), benchSize, 512, true)
		devices[i] = cryptdev.New([]cryptdev.Layer{r.layer(o)}, benchSize, false)
		fill(b, devices[i])
	}
	var took [2][]float64
	for round := 0; b.Loop(); round++ {
		for turn := range devices {
			i := (turn + round) % 2
			if first {
				empty(b, devices[i])
			}
			took[i] = append(took[i], streamed(b, devices[i].WriteAt, n))
			sync(b, devices[i])
		}
	}
	more := ratios(took[1], took[0])
	for _, list := range [][]float64{took[0], took[1], more} {
		slices.Sort(list)
	}
	mid := len(more) / 2
	b.ReportMetric(took[0][mid], "without-s/GiB")
	b.ReportMetric(took[1][mid], "with-s/GiB")
	b.ReportMetric(100*(more[mid]-1), "%more")
}
