package vm

import (
	"slices"
	"strings"
	"testing"
	"time"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// TestRuleA22_AnotherDaemon: the daemon went, by a kill or a clean stop, and the guest goes on: the next one is asked for the same disks as they were left, and told how the
// server is.
func TestRuleA22_AnotherDaemon(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(d *daemon, l *lease){
		"killed":  func(d *daemon, l *lease) { d.crash(); _ = l.line.Close() },
		"stopped": func(d *daemon, l *lease) { _ = l.line.Send(control.RunOrder{Bye: true}); d.crash(); _ = l.line.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, x, l, c := up(t, nil)
			wants(t, l.order(d.order(control.OrderPlug, "d2")), refusal.OK, "")
			end(d, l)
			x.says("waits for its disks until")
			c.types("full")
			x.says("stands still")
			d.disks = append(d.disks, d.disk("d2", control.DataDisk), d.disk("d9", control.DataDisk)) // the guest has let go of d9, and nobody knows
			for i := range d.disks {
				d.disks[i].Epoch = 6
			}
			d.serve()
			l2 := d.lease()
			want := []control.Continues{{DiskID: d.disk("sys", "").DiskID, Epoch: 5}, {DiskID: d.disk("d1", "").DiskID, Epoch: 5}, {DiskID: d.disk("d2", "").DiskID, Epoch: 5}}
			if l2.how.Token != l.how.Token || !slices.Equal(l2.how.Continues, want) {
				t.Errorf("it asked for %+v", l2.how)
			}
			if pid := l2.taken().PID; pid != x.server.PID {
				t.Error("another QEMU runs")
			}
			if left := l2.hears(func(r control.RunReport) bool { return r.Left != "" }); left.Left != d.disk("d9", "").DiskID {
				t.Errorf("left %+v", left)
			}
			if !slices.ContainsFunc(l2.heard, func(r control.RunReport) bool { return strings.Contains(r.Paused, "No space left") }) {
				t.Errorf("it did not tell that the guest stands still: %+v", l2.heard)
			}
			x.says("has its disks again")
			// And once more, from there.
			_ = l2.line.Close()
			l3 := d.lease()
			if l3.how.Continues[0].Epoch != 6 {
				t.Errorf("it asked for %+v", l3.how)
			}
			l3.taken()
			c.types("roomy")
			l3.hears(func(r control.RunReport) bool { return r.Resumed })
			l3.orders(control.RunOrder{Do: control.OrderStop})
			l3.ends("the guest shut down")
			x.ends(refusal.OK, "")
		})
	}
}

// TestRuleA22_Refused: where the disks may not be lent again the guest ends: at once where they are not what they were, and where a key or a right is missing when its time is over,
// unless it comes back before. The reason is said once.
func TestRuleA22_Refused(t *testing.T) {
	t.Parallel()
	for _, code := range []refusal.Code{refusal.Damaged, refusal.NotFound, refusal.KeyForbids, refusal.Locked, refusal.Denied, refusal.Busy} {
		for _, comes := range []bool{false, true} {
			d, x, l, _ := up(t, func(r *runner) { r.Reconnect = time.Second })
			atOnce := code == refusal.Damaged || code == refusal.NotFound
			d.change(func() { d.refuses = refusal.New(code, "see to it", "disk d1: refused with %d", code) })
			_ = l.line.Close()
			if comes && !atOnce {
				x.says("disk d1: refused with")
				d.change(func() { d.refuses = nil })
				d.lease().taken()
				x.says("has its disks again")
			} else {
				x.ends(code, "disk d1: refused with")
				if asked := d.asked; atOnce != (asked == 2) || asked > 100 {
					t.Errorf("it asked %d times", asked)
				}
				x.says("is switched off")
				if n := strings.Count(strings.Join(x.said, "\n"), "waits for its disks"); atOnce != (n == 0) || n > 1 {
					t.Errorf("it said %q", x.said)
				}
			}
		}
	}
}

// No daemon comes, or one that lends something else.
func TestGivenUp(t *testing.T) {
	t.Parallel()
	d, x, l, _ := up(t, func(r *runner) { r.Reconnect = 100 * time.Millisecond })
	d.crash()
	_ = l.line.Close()
	x.ends(refusal.Unreachable, "server web1 was given up after 100ms without its disks: no daemon")

	d, x, l, _ = up(t, nil)
	d.change(func() { d.disks = d.disks[1:] })
	_ = l.line.Close()
	var none control.RunReport
	if err := d.lease().line.Receive(&none); err == nil {
		t.Errorf("it took what it can't use: %+v", none)
	}
	x.ends(refusal.Damaged, "does not lend disk d1 any more")
}

// A guest can shut down, be asked to by a signal, and be switched off while the daemon is away.
func TestEndsWithoutDaemon(t *testing.T) {
	t.Parallel()
	for _, deaf := range []bool{false, true} {
		d, x, l, c := up(t, func(r *runner) {
			r.patience = map[bool]time.Duration{false: time.Hour, true: 100 * time.Millisecond}[deaf]
		})
		d.crash()
		_ = l.line.Close()
		x.says("waits for its disks")
		if deaf {
			c.types("deaf")
		}
		x.post(x.asked)
		x.ends(refusal.OK, "")
		if want := map[bool]string{false: "the guest shut down", true: "had no disks and did not shut down"}[deaf]; !strings.Contains(x.killed, want) {
			t.Errorf("%q", x.killed)
		}
	}
}

// A disk that was given to the guest, and whose daemon went before it heard so, goes back: no daemon knows that the guest has it.
func TestOrphan(t *testing.T) {
	t.Parallel()
	d, x, l, c := up(t, nil)
	disk := *d.order(control.OrderPlug, "d2").Disk
	x.post(func() { x.plug(new(link), disk, func(string, error) {}) })
	c.sees(`<device_add {"bus":"port2"`)
	if left := l.hears(func(r control.RunReport) bool { return r.Left != "" }); left.Left != disk.DiskID {
		t.Errorf("left %+v", left)
	}
	c.sees(`<device_del {"id":"disk2"}>`)
}
