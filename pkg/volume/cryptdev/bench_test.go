package cryptdev_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"

	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/volume/cryptdev"
)

// benchSize is more than any cache of a processor holds.
const benchSize = 256 * mib

// BenchmarkDevice is what the NBD server's calls cost: random places, on memory and on the file system of the temporary
// folder, one caller and eight.
func BenchmarkDevice(b *testing.B) {
	for _, fs := range []string{"tmpfs", "disk"} {
		for _, encrypted := range []bool{true, false} {
			for _, n := range []int{4 << 10, 128 << 10} {
				for _, op := range []string{"read", "nowait", "write", "fua", "first"} {
					for _, callers := range []int{1, 8} {
						name := fmt.Sprintf("%s/%s/%s/%dK/%d", fs, map[bool]string{true: "xts", false: "plain"}[encrypted], op, n>>10, callers)
						b.Run(name, func(b *testing.B) { benchmark(b, fs, encrypted, op, n, callers) })
					}
				}
			}
		}
	}
}

// benchDir is a folder in memory, or on the file system of the temporary folder.
func benchDir(b *testing.B, fs string) string {
	if fs == "disk" {
		return b.TempDir()
	}
	dir, err := os.MkdirTemp("/dev/shm", "bench")
	if err != nil {
		b.Skip(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func benchmark(b *testing.B, fs string, encrypted bool, op string, n, callers int) {
	p, err := pool.OpenFiles(benchDir(b, fs))
	if err != nil {
		b.Fatal(err)
	}
	d := newRig(b, p, benchSize, 512, encrypted).open()
	if op != "first" {
		fill(b, d)
	}
	b.SetBytes(int64(n))
	b.ReportAllocs()
	b.ResetTimer()
	if callers == 1 {
		call := caller(d, op, n)
		for i := 0; b.Loop(); i++ {
			if op == "first" && i%(benchSize/n) == 0 {
				b.StopTimer()
				empty(b, d)
				b.StartTimer()
			}
			call(b)
		}
		return
	}
	if op == "first" {
		b.Skip("there is no end of first writes for eight")
	}
	b.SetParallelism(callers / runtime.GOMAXPROCS(0))
	b.RunParallel(func(pb *testing.PB) {
		call := caller(d, op, n)
		for pb.Next() {
			call(b)
		}
	})
}

// caller makes one call after the other, at random places; first writes go from the start to the end.
func caller(d *cryptdev.Device, op string, n int) func(b *testing.B) {
	p, i := make([]byte, n), int64(0)
	rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
	do := map[string]func([]byte, int64) (int, error){
		"read": d.ReadAt, "nowait": nowaitOf(d), "write": d.WriteAt, "fua": d.WriteAtFUA, "first": d.WriteAt,
	}[op]
	return func(b *testing.B) {
		at := rng.Int64N(benchSize / int64(n))
		if op == "first" {
			at = i % (benchSize / int64(n))
			i++
		}
		if _, err := do(p, at*int64(n)); err != nil {
			b.Fatal(err)
		}
	}
}

func nowaitOf(d any) func([]byte, int64) (int, error) {
	if d, ok := d.(interface {
		ReadAtNowait([]byte, int64) (int, error)
	}); ok {
		return d.ReadAtNowait
	}
	return d.(*cryptdev.Device).ReadAt
}

func fill(b *testing.B, d *cryptdev.Device) {
	p := pattern(7, mib)
	for off := int64(0); off < benchSize; off += mib {
		write(b, d, p, off)
	}
	sync(b, d)
}

func empty(b *testing.B, d *cryptdev.Device) {
	if err := d.TrimAt(0, benchSize); err != nil {
		b.Fatal(err)
	}
	sync(b, d)
}
