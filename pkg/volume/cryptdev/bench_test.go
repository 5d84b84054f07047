package cryptdev_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/pool/pooltest"
	"nbdcrypt/pkg/volume/cryptdev"
)

// benchSize is more than any cache of a processor holds.
const benchSize = 256 * mib

// BenchmarkDevice is what the NBD server's calls cost: random places, one caller and eight, over storage that does nothing,
// over memory, and over the file system of the temporary folder. cpu-ns/op is what the processors worked for each call,
// which other work on the machine changes less than the time that went by.
func BenchmarkDevice(b *testing.B) {
	for _, fs := range []string{"none", "tmpfs", "disk"} {
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

// cpu is how long processors have worked for this process.
func cpu() int64 {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return 0
	}
	return used.Utime.Nano() + used.Stime.Nano()
}

// benchPool is a pool that keeps no data, one in memory, or one on the file system of the temporary folder.
func benchPool(b *testing.B, fs string) pool.Pool {
	if fs == "none" {
		return noData{pooltest.NewPower()}
	}
	dir := b.TempDir()
	if fs == "tmpfs" {
		var err error
		if dir, err = os.MkdirTemp("/dev/shm", "bench"); err != nil {
			b.Skip(err)
		}
		b.Cleanup(func() { _ = os.RemoveAll(dir) })
	}
	p, err := pool.OpenFiles(dir)
	if err != nil {
		b.Fatal(err)
	}
	return p
}

// noData is a pool whose data volumes take what is written and read as whatever the buffer holds: what remains is the cost of
// the device.
type noData struct{ pool.Pool }

func (p noData) Open(ctx context.Context, name string, readOnly bool) (pool.Volume, error) {
	v, err := p.Pool.Open(ctx, name, readOnly)
	if strings.HasSuffix(name, "/data") {
		v = nothing{v}
	}
	return v, err
}

type nothing struct{ pool.Volume }

func (nothing) ReadAt(p []byte, _ int64) (int, error)       { return len(p), nil }
func (nothing) ReadAtNowait(p []byte, _ int64) (int, error) { return len(p), nil }
func (nothing) WriteAt(p []byte, _ int64) (int, error)      { return len(p), nil }
func (nothing) WriteAtSync(p []byte, _ int64) (int, error)  { return len(p), nil }
func (nothing) Flush() error                                { return nil }

func benchmark(b *testing.B, fs string, encrypted bool, op string, n, callers int) {
	if op == "first" && callers > 1 {
		b.Skip("there is no end of first writes for eight")
	}
	d := newRig(b, benchPool(b, fs), benchSize, 512, encrypted).open()
	if op != "first" {
		fill(b, d)
	}
	benchCalls(b, d, op, n, callers)
}

func benchCalls(b *testing.B, d *cryptdev.Device, op string, n, callers int) {
	b.SetBytes(int64(n))
	b.ReportAllocs()
	b.ResetTimer()
	began := cpu()
	defer func() { b.ReportMetric(float64(cpu()-began)/float64(b.N), "cpu-ns/op") }()
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
	p, i := pattern(1, n), int64(0)
	rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
	do := map[string]func([]byte, int64) (int, error){
		"read": d.ReadAt, "nowait": d.ReadAtNowait, "write": d.WriteAt, "fua": d.WriteAtFUA, "first": d.WriteAt,
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
