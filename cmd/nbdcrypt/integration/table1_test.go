//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nbdcrypt/pkg/control"
)

// clocktest builds, once, the program whose clock a test can move.
var clocktest = sync.OnceValues(func() (string, error) {
	path := program + "-clocktest"
	return path, build(path, "-tags=clocktest")
})

// clockDaemon lays out a daemon of that build.
func clockDaemon(t *testing.T) *daemon {
	t.Helper()
	d := newDaemon(t)
	var err error
	d.program, err = clocktest()
	check(t, err)
	d.env = append(d.env, "NBDCRYPT_CLOCK="+d.dir+"/clock")
	return d
}

// moveClock sets how far the daemon's clock is ahead of the machine's.
func (d *daemon) moveClock(by time.Duration) {
	d.t.Helper()
	file := d.dir + "/clock"
	check(d.t, os.WriteFile(file+".new", []byte(by.String()), 0o644))
	check(d.t, os.Rename(file+".new", file))
}

const day = 24 * time.Hour

// keyGone tells whether the key is deleted.
func (d *daemon) keyGone(key string) bool {
	return execute(d.t, d.command("key", "show", key)).code == 3
}

// untilGone moves the clock past the key's date, and waits until the daemon has deleted it.
func (d *daemon) untilGone(key string) {
	d.t.Helper()
	d.moveClock(8 * day)
	waitFor(d.t, "key "+key+" is not deleted at its date", func() bool { return d.keyGone(key) })
}

// verified is a load that reads back and compares what it has written, on connections of its own, until it is stopped.
type verified struct {
	rounds  atomic.Int64
	stop    atomic.Bool
	failure atomic.Pointer[error]
	all     sync.WaitGroup
}

func verifiedLoad(t *testing.T, uri string) *verified {
	t.Helper()
	v := &verified{}
	for i := range 4 {
		c := dial(t, uri)
		v.all.Go(func() {
			for n := 0; !v.stop.Load(); n++ {
				want := noise(fmt.Sprint(i, n), 16<<10)
				at := int64(i)<<22 + int64(n%128)<<14
				_, err := c.WriteAt(want, at)
				if err == nil && n%8 == 0 {
					err = c.Flush()
				}
				got := make([]byte, len(want))
				if err == nil {
					_, err = c.ReadAt(got, at)
				}
				if err == nil && !bytes.Equal(got, want) {
					err = fmt.Errorf("what was written at %d is not what is read", at)
				}
				if err != nil {
					v.failure.Store(&err)
					return
				}
				v.rounds.Add(1)
			}
		})
	}
	v.goesOn(t)
	return v
}

// goesOn waits until more of it has been done, without an error.
func (v *verified) goesOn(t *testing.T) {
	t.Helper()
	from := v.rounds.Load()
	waitFor(t, "the load stands still", func() bool { return v.rounds.Load() > from+100 || v.failure.Load() != nil })
	if err := v.failure.Load(); err != nil {
		t.Fatalf("the load failed: %v", *err)
	}
}

func (v *verified) end(t *testing.T) {
	t.Helper()
	v.goesOn(t)
	v.stop.Store(true)
	v.all.Wait()
}

// row is a row of Table 1 of the source document: what happens to the CMK, what its state is called then, and what restores it.
type row struct {
	name, state string
	spoil       func(*daemon)
	restore     []string // nil where nothing does
}

func table1() []row {
	return []row{
		{"disabled", "Disabled", func(d *daemon) { d.do("key", "disable", "mine") }, []string{"key", "enable", "mine"}},
		{"scheduled", "Pending deletion", func(d *daemon) { d.do("key", "schedule-deletion", "mine", "--days=7", "--yes") },
			[]string{"key", "cancel-deletion", "mine", "--enable"}},
		{"deleted", "deleted", func(d *daemon) {
			d.do("key", "schedule-deletion", "mine", "--days=7", "--yes")
			d.untilGone("mine")
		}, nil},
	}
}

// table1Disk makes a disk under a key of its own that holds noise, attached.
func table1Disk(t *testing.T) (d *daemon, uri string) {
	t.Helper()
	d = clockDaemon(t)
	d.start()
	d.do("grant", "create")
	return d, d.underKey()
}

// stranded sees that the disk can't be attached, now and after a restart, and that the refusal names key and state.
func (d *daemon) stranded(r row) {
	d.t.Helper()
	for again := range 2 {
		e := d.refused(4, "attach", "vol")
		if !strings.Contains(e.Message, "vol") || !strings.Contains(strings.ToLower(e.Message), strings.ToLower(r.state)) || e.Hint == "" {
			d.t.Errorf("the refusal does not name disk, state and way out: %+v", e)
		}
		if disk := d.show("vol"); disk.Status != "available" || !strings.EqualFold(disk.Key.State, r.state) {
			d.t.Errorf("the disk is %s, its key %s", disk.Status, disk.Key.State)
		}
		if again == 0 {
			d.stop()
			d.start()
		}
	}
}

// restored sees that what restores the key gives the disk back, byte for byte; or, where the key is deleted, that nothing does.
func (d *daemon) restored(r row) {
	d.t.Helper()
	if r.restore == nil {
		for _, args := range [][]string{{"key", "enable", "mine"}, {"key", "cancel-deletion", "mine", "--enable"}, {"key", "show", "mine"}} {
			d.refused(3, args...)
		}
		d.refused(4, "disk", "escrow", "vol", "--yes")
		d.do("disk", "delete", "vol", "--yes") // rule C12
		return
	}
	d.do(r.restore...)
	d.holdsNoise(d.attach("vol"))
}

// TestRuleA14_A15_A17_A18_A19_A20_A23_Attached: Table 1, an encrypted disk that is attached: reads and writes are normal, until it is detached; then it can't
// be attached again (A15) until the key is restored (A17, A19), or ever (A21).
func TestRuleA14_A15_A17_A18_A19_A20_A23_Attached(t *testing.T) {
	for _, r := range table1() {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			d, uri := table1Disk(t)
			v := verifiedLoad(t, uri)
			r.spoil(d)
			v.goesOn(t)
			d.holdsNoise(d.show("vol").Attachments[0].URI)
			v.end(t)
			// Rule A23.
			if e := d.refused(9, "detach", "vol"); !strings.Contains(strings.ToLower(e.Message), strings.ToLower(r.state)) {
				t.Errorf("the warning does not name the state: %q", e.Message)
			}
			d.do("detach", "vol", "--yes")
			d.stranded(r)
			d.restored(r)
		})
	}
}

// TestRuleA16_A17_A18_A19_A21_NotAttached: Table 1, an encrypted disk that is not attached.
func TestRuleA16_A17_A18_A19_A21_NotAttached(t *testing.T) {
	for _, r := range table1() {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			d, _ := table1Disk(t)
			d.do("detach", "vol")
			r.spoil(d)
			d.stranded(r)
			d.restored(r)
		})
	}
}

// TestRuleA22_CrashWhileUnusable: a crash counts as a detach, in every row of Table 1, and what became of the disk is told.
func TestRuleA22_CrashWhileUnusable(t *testing.T) {
	for _, r := range table1() {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			d, _ := table1Disk(t)
			r.spoil(d)
			d.kill()
			d.start()
			if said := strings.Join(get[control.Status](d, "status").Warnings, "\n"); !strings.Contains(said, "vol") {
				t.Errorf("status does not say what became of the disk: %q", said)
			}
			d.stranded(r)
			d.restored(r)
		})
	}
}

// TestRuleB1_DeletedWhileDown: a key whose date comes while no daemon runs is deleted at the next start.
func TestRuleB1_DeletedWhileDown(t *testing.T) {
	t.Parallel()
	d, _ := table1Disk(t)
	d.do("detach", "vol")
	d.do("key", "schedule-deletion", "mine", "--days=7", "--yes")
	d.stop()
	d.moveClock(7*day - time.Hour)
	d.start()
	if d.keyGone("mine") {
		t.Fatal("the key is deleted before its date")
	}
	d.stop()
	d.moveClock(7*day + time.Hour)
	d.start()
	waitFor(t, "the key is not deleted", func() bool { return d.keyGone("mine") })
	d.refused(4, "attach", "vol")
}

// TestRuleB3_ClockJumps: a clock that was set back undeletes nothing, and one that jumps far ahead destroys nothing before somebody says yes.
func TestRuleB3_ClockJumps(t *testing.T) {
	t.Parallel()
	d, _ := table1Disk(t)
	d.do("detach", "vol")
	d.do("key", "create", "other")
	d.do("key", "schedule-deletion", "mine", "--days=7", "--yes")
	d.untilGone("mine")
	d.do("key", "schedule-deletion", "other", "--days=30", "--yes")
	d.stop()
	d.moveClock(-30 * day)
	d.start()
	d.refused(4, "attach", "vol")
	d.refused(3, "key", "show", "mine")
	if get[control.Key](d, "key", "show", "other").State != "Pending deletion" {
		t.Error("a clock that was set back changes the other key's state")
	}
	d.stop()
	d.moveClock(5000 * day)
	d.start()
	if d.keyGone("other") { // a start looks at what is due before it is ready
		t.Fatal("a clock that jumped ahead has destroyed a key")
	}
	if said := strings.Join(get[control.Status](d, "status").Warnings, "\n"); !strings.Contains(said, "clock") {
		t.Errorf("status does not tell of the clock: %q", said)
	}
	d.refused(9, "clock", "accept")
	d.do("key", "cancel-deletion", "other", "--enable")
	d.do("clock", "accept", "--yes")
	if get[control.Key](d, "key", "show", "other").State != "Enabled" {
		t.Error("the key that was saved is not enabled")
	}
}
