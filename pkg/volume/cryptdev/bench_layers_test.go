package cryptdev_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/uuid"

	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/volume/cryptdev"
	"nbdcrypt/pkg/volume/layer"
)

// benchTower is a full disk of that many layers: all of its data in the lowest, or in turns of 64 KiB in all of them.
func benchTower(b *testing.B, p pool.Pool, layers int, mixed bool) *cryptdev.Device {
	w := newTower(b, p, benchSize, true)
	fill(b, w.device)
	for i := 1; i < layers; i++ {
		if err := w.push(nothingBetween); err != nil {
			b.Fatal(err)
		}
		for off := int64(i) * 64 << 10; mixed && off < benchSize; off += int64(layers) * 64 << 10 {
			write(b, w.device, pattern(byte(i), 64<<10), off)
		}
	}
	sync(b, w.device)
	for off := int64(0); off < benchSize; off += mib { // so that all maps are in memory
		read(b, w.device, off, 4096)
	}
	return w.device
}

// BenchmarkLayers is what reads cost through layers: random places, each in one of them.
func BenchmarkLayers(b *testing.B) {
	for _, fs := range []string{"none", "tmpfs", "disk"} {
		for _, n := range []int{4 << 10, 64 << 10} {
			for _, op := range []string{"read", "nowait"} {
				for _, mixed := range []bool{false, true} {
					for _, layers := range []int{1, 4, 8} {
						for _, callers := range []int{1, 8} {
							name := fmt.Sprintf("%s/%dK/%s/mixed=%v/layers=%d/%d", fs, n>>10, op, mixed, layers, callers)
							b.Run(name, func(b *testing.B) {
								benchCalls(b, benchTower(b, benchPool(b, fs), layers, mixed), op, n, callers)
							})
						}
					}
				}
			}
		}
	}
}

// BenchmarkAfterSnapshot is what random writes cost before a snapshot, where they go over data, and after it, where each place
// is written for the first time: without a flush, or with one after a few writes.
func BenchmarkAfterSnapshot(b *testing.B) {
	for _, fs := range []string{"tmpfs", "disk"} {
		for _, n := range []int{4 << 10, 64 << 10, 256 << 10, 1 << 20} {
			for _, flush := range []int{0, 32} {
				for _, when := range []string{"before", "after"} {
					b.Run(fmt.Sprintf("%s/%dK/flush=%d/%s", fs, n>>10, flush, when), func(b *testing.B) {
						benchWrites(b, benchPool(b, fs), n, flush, when == "after")
					})
				}
			}
		}
	}
}

func benchWrites(b *testing.B, p pool.Pool, n, flush int, after bool) {
	w := newTower(b, p, benchSize, true)
	fill(b, w.device)
	rng := rand.New(rand.NewPCG(1, 1))
	data, places := pattern(1, n), benchSize/n
	var order []int
	var worked, began int64
	for i := 0; b.Loop(); i++ {
		if i%places == 0 {
			b.StopTimer()
			worked += cpu() - began
			if sync(b, w.device); after {
				snapshot(b, w)
			}
			order = rng.Perm(places)
			if began = cpu(); i == 0 {
				worked = 0
			}
			b.StartTimer()
		}
		write(b, w.device, data, int64(order[i%places])*int64(n))
		if flush > 0 && i%flush == flush-1 {
			sync(b, w.device)
		}
	}
	b.ReportMetric(float64(worked+cpu()-began)/float64(b.N), "cpu-ns/op")
}

// BenchmarkFirstWrites is what writes in order cost before a snapshot, over data, and after it, beside those to a plain file over data, and where it
// has none yet: CPU of each in seconds per GiB, and the ratios, medians of rounds. What a file system takes for new pages and blocks is in the file's.
func BenchmarkFirstWrites(b *testing.B) {
	for _, fs := range []string{"tmpfs", "disk"} {
		for _, n := range []int{4 << 10, 64 << 10, 1 << 20} {
			b.Run(fmt.Sprintf("%s/%dK", fs, n>>10), func(b *testing.B) {
				p, name := benchPool(b, fs), layer.DataName(uuid.New())
				w := newTower(b, p, benchSize, true)
				fill(b, w.device)
				var before, after, over, first []float64
				for b.Loop() {
					sync(b, w.device)
					before = append(before, streamed(b, w.device.WriteAt, n))
					sync(b, w.device)
					snapshot(b, w)
					after = append(after, streamed(b, w.device.WriteAt, n))
					must(b, p.Create(b.Context(), name, benchSize))
					v, err := p.Open(b.Context(), name, false)
					must(b, err)
					first = append(first, streamed(b, v.WriteAt, n))
					must(b, v.Flush())
					over = append(over, streamed(b, v.WriteAt, n))
					must(b, v.Flush())
					must(b, v.Close())
					must(b, p.Delete(b.Context(), name))
				}
				for _, m := range []struct {
					name string
					list []float64
				}{{"before", before}, {"after", after}, {"file-over", over}, {"file-first", first}, {"before/after", ratios(before, after)},
					{"file-over/first", ratios(over, first)}, {"less-file", ratios(before, without(after, first, over))}} {
					slices.Sort(m.list)
					b.ReportMetric(m.list[len(m.list)/2], m.name)
				}
			})
		}
	}
}

// streamed writes all of a disk in order, and tells the CPU seconds per GiB.
func streamed(b *testing.B, write func([]byte, int64) (int, error), n int) float64 {
	data, began := pattern(1, n), cpu()
	for off := int64(0); off < benchSize; off += int64(n) {
		_, err := write(data, off)
		must(b, err)
	}
	return float64(cpu()-began) / 1e9 * (1 << 30) / benchSize
}

func ratios(of, to []float64) (list []float64) {
	for i := range of {
		list = append(list, of[i]/to[i])
	}
	return list
}

// without takes from each what a file pays more for its first write than for its second.
func without(list, first, over []float64) (rest []float64) {
	for i := range list {
		rest = append(rest, list[i]-first[i]+over[i])
	}
	return rest
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// snapshot freezes the disk, and lets go of all that is below once each place was written again.
func snapshot(b *testing.B, w *tower) {
	if err := w.push(nothingBetween); err != nil {
		b.Fatal(err)
	}
	if len(w.levels) < 3 {
		return
	}
	gone := w.levels[2:]
	w.levels = w.levels[:2]
	if err := w.replace(gone, nil); err != nil {
		b.Fatal(err)
	}
	for _, l := range gone {
		if err := layer.Delete(b.Context(), l.pool, l.header.ID); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPush is how long a snapshot keeps I/O waiting: of a disk of 1 TiB with 100 GiB written.
func BenchmarkPush(b *testing.B) {
	for _, written := range []int64{0, 100 << 30} {
		b.Run(fmt.Sprintf("written=%dGiB", written>>30), func(b *testing.B) {
			p, err := pool.OpenFiles(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			w := newTower(b, p, 1<<40, true)
			for off := int64(0); off < written; off += 4 * mib { // the map is what could scale
				write(b, w.device, pattern(1, layer.BlockSize), off)
			}
			sync(b, w.device)
			for b.Loop() {
				b.StopTimer()
				top := w.levels[0].beside(w.size)
				if err := top.create(); err != nil {
					b.Fatal(err)
				}
				l := top.layer(layer.Options{})
				b.StartTimer()
				w.device.Push(l)
				b.StopTimer()
				w.seal()
				w.levels = append([]*level{{rig: top, sealed: true}}, w.levels...)
				if len(w.levels) > 20 {
					gone := w.levels[1:10]
					w.levels = append(w.levels[:1:1], w.levels[10:]...)
					if err := w.replace(gone, nil); err != nil {
						b.Fatal(err)
					}
				}
				b.StartTimer()
			}
		})
	}
}
