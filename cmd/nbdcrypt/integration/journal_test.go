//go:build integration

package integration

import (
	"flag"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"nbdcrypt/pkg/control"
)

// kills is how often the daemon is killed by the tests that lose nothing then.
var kills = flag.Int("kills", 12, "how often the daemon is killed under load")

// attachWhole attaches a disk of which nothing may be lost.
func (d *daemon) attachWhole(name string) (uri string) {
	d.t.Helper()
	at := get[control.Attached](d, "attach", name)
	if at.Unclean || len(at.Warnings) != 0 {
		d.t.Fatalf("disk %s is unclean (%v): %q", name, at.Unclean, at.Warnings)
	}
	return at.URI
}

// TestKilledLosesNoAnsweredWrite: while the machine stays up, kill -9 of the daemon costs no write that was answered, flushed or not, and nobody is told
// that it may.
func TestKilledLosesNoAnsweredWrite(t *testing.T) {
	for _, kind := range disks {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			d := startDaemon(t)
			d.create("vol", "16M", kind.flags...)
			l := newLoad(d.show("vol").SectorSize)
			rng := rand.New(rand.NewPCG(8, 4))
			uri := d.attachWhole("vol")
			for range *kills {
				wait := l.start(t, uri)
				l.waitForFlushes(t, 1+rng.Int64N(8))
				time.Sleep(time.Duration(rng.Int64N(int64(3 * time.Millisecond)))) // anywhere between two flushes
				d.kill()
				wait()
				l.drained()
				d.start()
				uri = d.attachWhole("vol")
				l.verify(t, uri)
			}
			if said := d.said(); strings.Count(said, "nothing that was answered is lost") < *kills {
				t.Errorf("the log does not say that it recovered:\n%s", said)
			}
			d.do("detach", "vol")
			d.noJournals()
			d.checkClean()
		})
	}
}

// noJournals sees that no journal is left.
func (d *daemon) noJournals() {
	d.t.Helper()
	stores, err := os.ReadDir(d.run + "/journal")
	check(d.t, err)
	for _, store := range stores {
		left, err := os.ReadDir(d.run + "/journal/" + store.Name())
		check(d.t, err)
		if len(left) != 0 {
			d.t.Errorf("left: %v", left)
		}
	}
}
