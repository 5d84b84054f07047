//go:build integration

package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"nbdcrypt/pkg/control"
)

// TestKilledInTheMiddleOfWrites: after kill -9 at any time every acknowledged flush and FUA write is there, and no sector is torn or turned into
// garbage.
func TestKilledInTheMiddleOfWrites(t *testing.T) {
	for _, kind := range disks {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			d := startDaemon(t)
			d.create("vol", "16M", kind.flags...)
			l := newLoad(d.show("vol").SectorSize)
			rng := rand.New(rand.NewPCG(7, 7))
			for range 12 {
				wait := l.start(t, d.attach("vol"))
				l.waitForFlushes(t, 8+rng.Int64N(24))
				d.kill()
				wait()
				d.start()
				l.verify(t, d.attach("vol"))
				d.do("detach", "vol")
			}
			d.checkClean()
		})
	}
}

// TestKilledInTheMiddleOfCommands: after kill -9 during any command the daemon starts again, every disk that it lists attaches, and the
// pool holds nothing that it does not list.
func TestKilledInTheMiddleOfCommands(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.create("kept", "4M", "--encrypted")
	write(t, dial(t, d.attach("kept")), noise("kept", 4096), 0)
	d.do("detach", "kept")
	rng := rand.New(rand.NewPCG(11, 11))
	for round := range 10 {
		var done atomic.Int64
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			d.runCommands(round, &done)
		}()
		goal := 1 + rng.Int64N(9)
		waitFor(t, "the commands don't get on", func() bool { return done.Load() >= goal })
		time.Sleep(time.Duration(rng.Int64N(int64(10 * time.Millisecond)))) // anywhere in the command after
		d.kill()
		<-ended
		d.start()
		d.do("check") // no damage; that a disk was attached is noted
		d.nothingStray()
		d.checkClean()
	}
	expect(t, dial(t, d.attach("kept")), noise("kept", 4096), 0)
}

// runCommands runs commands until one fails, as all do once the daemon is gone.
func (d *daemon) runCommands(round int, done *atomic.Int64) {
	for i := 0; ; i++ {
		name := fmt.Sprintf("disk-%d-%d", round, i)
		for _, args := range [][]string{
			{"key", "create", name}, {"disk", "create", name, "--size=4M", "--key", name}, {"attach", name}, {"disk", "extend", name, "--size=8M"},
			{"detach", name}, {"key", "disable", name}, {"key", "enable", name}, {"disk", "delete", name, "--yes"},
		} {
			if d.command(args...).Run() != nil {
				return
			}
			done.Add(1)
		}
	}
}

// nothingStray attaches and deletes every disk but the kept one, and then finds the kept one's files alone.
func (d *daemon) nothingStray() {
	d.t.Helper()
	for _, disk := range get[[]control.Disk](d, "disk", "list") {
		if disk.Name == "kept" {
			continue
		}
		if disk.Key.State != "Enabled" {
			d.do("key", "enable", disk.Key.ID)
		}
		d.attach(disk.Name)
		d.do("detach", disk.Name)
		d.do("disk", "delete", disk.Name, "--yes")
	}
	layers, err := os.ReadDir(d.pool)
	check(d.t, err)
	want := filepath.Base(filepath.Dir(d.show("kept").Layers[0].Segments[0]))
	for _, layer := range layers {
		if layer.IsDir() && layer.Name() != want {
			d.t.Errorf("layer %s belongs to no disk", layer.Name())
		}
	}
}
