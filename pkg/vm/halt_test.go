package vm

import (
	"testing"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// A guest that KVM can't go on with begins again without it, and nobody is told twice that the server has started.
func TestKVMThatCannotGoOn(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "pvm")
	x := d.runs(func(r *runner) { r.kvm = true })
	l := d.lease()
	first := l.taken()
	if first.Accelerator != "kvm" || x.up().PID != first.PID {
		t.Error(first)
	}
	var again control.RunningServer
	l.hears(func(r control.RunReport) bool {
		if r.Running != nil {
			again = *r.Running
		}
		return r.Running != nil
	})
	if again.Accelerator != "tcg" || again.PID == first.PID || again.Console != first.Console {
		t.Errorf("%+v after %+v", again, first)
	}
	x.says("begins again without KVM")
	look(t, again.Console).sees("<stop null>") // what the guest wrote is written
	l.order(control.RunOrder{Do: control.OrderStop})
	x.ends(refusal.OK, "")
}

// A guest whose requests are still under way does not begin again: they could come after what it then writes.
func TestKVMThatCannotGoOnAmidWrites(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "pvm-unquiet")
	x := d.runs(func(r *runner) { r.kvm = true })
	l := d.lease()
	l.taken()
	l.ends("internal error")
	x.ends(refusal.Failed, "internal error")
}

// Disks don't come or go between the end of one QEMU and the next.
func TestNothingIsPluggedWhileItBeginsAgain(t *testing.T) {
	r := newRunner(Options{}, "", quick)
	r.qemu, r.anew = &qemu{}, true
	r.order(nil, control.RunOrder{ID: 1, Do: control.OrderPlug, Disk: &control.RunDisk{}})
	if len(r.disks.all) > 0 {
		t.Error("the next QEMU would have the disk that the one before was to be given")
	}
}

// Without KVM, there is nothing to begin again with.
func TestGuestThatCannotGoOn(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "web1")
	x := d.runs(nil)
	l := d.lease()
	l.taken()
	look(t, x.up().Console).types("break")
	l.ends("internal error")
	x.ends(refusal.Failed, "internal error")
}
