//go:build vm

package vmtest

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nbdcrypt/cmd/nbdcrypt/vmtest/load"
	"nbdcrypt/cmd/nbdcrypt/vmtest/machine"
	"nbdcrypt/cmd/nbdcrypt/vmtest/recorder"
)

// poolSize is the disk below the pool: as small as mkfs.xfs makes one. Images are copies of what was written to it.
const poolSize = 320 << 20

// daemonFlags put all that the daemon has onto the pool's disk.
const daemonFlags = "--state /pool/state --root-key /pool/root.key"

// bench is a machine whose pool is on a recording disk, and what was said there.
type bench struct {
	t    *testing.T
	disk *recorder.Disk
	m    *machine.Machine
	off  atomic.Bool // the power is

	mu  sync.Mutex
	now moment
	all []moment
}

// moment is what had been acknowledged at a point.
type moment struct {
	at       recorder.Point
	acks     map[string]load.Acks // of each stream
	done     []string             // commands, in order
	begun    load.Acks            // of the stream "client" when the snapshot was begun that is being made, or was made last
	snapshot load.Acks            // the same of the newest that was acknowledged
}

func newBench(t *testing.T, mkfs string) *bench {
	t.Helper()
	disk, err := recorder.New(t.TempDir(), poolSize)
	check(t, err)
	b := &bench{t: t, disk: disk, now: moment{acks: map[string]load.Acks{}}}
	at, end, err := disk.Serve(t.TempDir()+"/s", b.hear)
	check(t, err)
	t.Cleanup(func() {
		if err := errors.Join(end(), disk.Close()); err != nil {
			t.Error(err)
		}
	})
	b.m = machine.Start(t, machine.Options{Disks: []machine.Disk{{Source: at.Pool, Serial: "pool"}, {Source: at.Marks, Serial: "marks"}}})
	b.m.Run(mkfs + " /dev/disk/by-serial/pool")
	mountPool(b.m, "pool")
	serve(b.m, daemonFlags)
	b.m.Run(create)
	return b
}

// mountPool mounts the pool's disk. The run directory is there too: what a daemon left in it before a power cut must not be trusted after.
func mountPool(m *machine.Machine, serial string) {
	m.Run("mkdir -p /pool /run/nbdcrypt; mount /dev/disk/by-serial/" + serial + " /pool; mkdir -p /pool/run; mount -o bind /pool/run /run/nbdcrypt")
}

// cut lets the loads run until there was enough, and cuts the power.
func (b *bench) cut(acks, commands int) {
	b.t.Helper()
	var all sync.WaitGroup
	for _, s := range streams {
		all.Go(func() {
			b.follow("guest load -marks=/dev/disk/by-serial/marks -name=" + s.name + " " + s.plan + " " + s.target)
		})
	}
	all.Go(func() { b.follow(metadata) })
	waitUntil(b.t, "the load gets on", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.all) >= acks && len(b.now.done) >= commands || b.t.Failed()
	})
	b.off.Store(true)
	b.m.Cut()
	all.Wait()
	if b.disk.Flushes() == 0 || len(b.now.acks) < len(streams) {
		b.t.Fatalf("%d flushes came through to the disk, %d streams were heard", b.disk.Flushes(), len(b.now.acks))
	}
}

// follow runs a script until the power is off.
func (b *bench) follow(script string) {
	code, err := b.m.Follow(b.t.Context(), script, b.hear)
	if !b.off.Load() {
		b.t.Errorf("%q ended with %d, %v", script, code, err)
	}
}

// hear learns from what loads and commands say.
func (b *bench) hear(line string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	name, rest, _ := strings.Cut(line, " ")
	switch name {
	case "done":
		b.now.done = append(b.now.done[:len(b.now.done):len(b.now.done)], rest)
		if strings.HasPrefix(rest, "snapshot") {
			b.now.snapshot = b.now.begun
		}
	case "begin":
		b.now.begun = b.now.acks["client"]
	default:
		a := b.now.acks[name].Clone()
		if !a.Take(rest) {
			b.t.Logf("the guest says: %s", line)
			return
		}
		b.now.acks = maps.Clone(b.now.acks)
		b.now.acks[name] = a
	}
	b.now.at = b.disk.Now()
	b.all = append(b.all, b.now)
}

// image is one that a power cut left, and what has to hold there.
type image struct {
	moment
	path, serial string
	cut          recorder.Point
	keep         recorder.Keep
	left         recorder.Left
}

// images makes n of them. The first is of the moment when the power really went; the others are cut when the most was at stake, or at the very moment of an
// acknowledgement.
func (b *bench) images(seed uint64, n int) (images []image) {
	b.t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range n {
		first := rng.IntN(len(b.all))
		cut := b.all[first].at
		switch {
		case i == 0:
			cut = b.disk.Now()
		case i%5 != 4:
			cut = b.disk.Riskiest(cut, b.all[min(first+span, len(b.all)-1)].at)
		}
		images = append(images, b.image(fmt.Sprintf("cut%d", i), cut, func(im *image, f *os.File) (recorder.Left, error) {
			im.keep = keeps[i%len(keeps)]
			return b.disk.Image(f, cut, im.keep, seed<<32|uint64(i))
		}))
	}
	return images
}

// lie makes one of a disk that kept nothing of what was acknowledged later than half of it was.
func (b *bench) lie() image {
	b.t.Helper()
	return b.image("lie", b.disk.Now(), func(_ *image, f *os.File) (recorder.Left, error) {
		return b.disk.Lie(f, b.all[len(b.all)/2].at, b.disk.Now())
	})
}

func (b *bench) image(serial string, cut recorder.Point, fill func(*image, *os.File) (recorder.Left, error)) image {
	b.t.Helper()
	f, err := os.Create(b.t.TempDir() + "/" + serial)
	check(b.t, err)
	im := image{moment: b.before(cut), path: f.Name(), serial: serial, cut: cut}
	im.left, err = fill(&im, f)
	check(b.t, errors.Join(err, f.Close()))
	return im
}

// span is how many acknowledgements the search for a risky moment goes on for.
const span = 6

// before is the last moment until a point.
func (b *bench) before(cut recorder.Point) moment {
	last := b.all[0]
	for _, m := range b.all {
		if m.at <= cut {
			last = m
		}
	}
	return last
}

// waitUntil waits until a condition holds.
func waitUntil(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
