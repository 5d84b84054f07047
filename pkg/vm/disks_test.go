package vm

import (
	"strings"
	"testing"
	"time"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// up is a server that runs, with its daemon's end of the lease and a look at its console.
func up(t *testing.T, change func(*runner)) (*daemon, *running, *lease, *screen) {
	t.Helper()
	d := newDaemon(t, "web1")
	x := d.runs(change)
	l := d.lease()
	l.taken()
	return d, x, l, look(t, x.up().Console)
}

// wants wants an answer of that code and those words.
func wants(t *testing.T, r control.RunReport, code refusal.Code, words string) {
	t.Helper()
	switch {
	case code == refusal.OK && r.Error != nil:
		t.Errorf("answered %+v", r.Error)
	case code != refusal.OK && (r.Error == nil || r.Error.Code != int(code) || !strings.Contains(r.Error.Message, words)):
		t.Errorf("answered %+v, want %d %q", r.Error, code, words)
	}
}

func (d *daemon) order(do, disk string) control.RunOrder {
	o := d.disk(disk, control.DataDisk)
	o.Export = d.token + "/" + o.DiskID
	return control.RunOrder{Do: do, Disk: &o}
}

// Disks come and go while the guest runs: on a port that is free, as a device that QEMU never had. What QEMU or the guest refuse is said, and undone.
func TestPlug(t *testing.T) {
	t.Parallel()
	d, x, l, c := up(t, nil)
	wants(t, l.order(d.order(control.OrderPlug, "d2")), refusal.OK, "")
	c.sees(`"export":"` + d.token + `/d2-4a59`)
	c.sees(`<device_add {"bus":"port2","drive":"node2","driver":"virtio-blk-pci","id":"disk2"`)
	wants(t, l.order(d.order(control.OrderPlug, "d2")), refusal.Busy, "still has disk d2")
	wants(t, l.order(d.order(control.OrderUnplug, "d1")), refusal.OK, "")
	c.sees(`<device_del {"id":"disk1"}>`)
	c.sees(`<blockdev-del {"node-name":"node1"}>`)
	wants(t, l.order(d.order(control.OrderUnplug, "d1")), refusal.OK, "")
	c.types("refuse")
	wants(t, l.order(d.order(control.OrderPlug, "d3")), refusal.Failed, "disk d3 can't be given to server web1: qmp: device_add: the bus is full")
	c.sees(`"drive":"node3"`)
	c.sees(`<blockdev-del {"node-name":"node3"}>`)
	c.sees(`"bus":"port1"`)
	wants(t, l.order(control.RunOrder{Do: "dance", Disk: &control.RunDisk{}}), refusal.Failed, `does not know the order "dance"`)
	if x.disks.next != 4 || len(x.disks.all) != 2 {
		t.Errorf("%+v", x.disks)
	}
}

// There are as many ports as a guest can have disks.
func TestPortsEnd(t *testing.T) {
	t.Parallel()
	d, _, l, _ := up(t, nil)
	for n := 2; n < ports; n++ {
		wants(t, l.order(d.order(control.OrderPlug, "n"+strings.Repeat("x", n))), refusal.OK, "")
	}
	wants(t, l.order(d.order(control.OrderPlug, "more")), refusal.Busy, "has 24 disks")
	wants(t, l.order(d.order(control.OrderUnplug, "d1")), refusal.OK, "")
	wants(t, l.order(d.order(control.OrderPlug, "more")), refusal.OK, "")
}

// A guest that does not let go keeps the disk; when it does later, the daemon is told.
func TestUnplugLate(t *testing.T) {
	t.Parallel()
	for _, says := range []bool{false, true} {
		d, _, l, c := up(t, func(r *runner) {
			if !says {
				r.pace.unplug = 50 * time.Millisecond
			}
		})
		c.types("keep")
		id := l.orders(d.order(control.OrderUnplug, "d1"))
		if says {
			c.sees("<device_del")
			wants(t, l.order(d.order(control.OrderUnplug, "d1")), refusal.Busy, "being given to the guest, or taken from it")
			c.types("wont")
		}
		wants(t, l.answer(id), refusal.Busy, "let go of disk d1")
		id = l.orders(d.order(control.OrderUnplug, "d1"))
		if says {
			wants(t, l.order(d.order(control.OrderUnplug, "d1")), refusal.Busy, "")
			c.types("wont")
		}
		wants(t, l.answer(id), refusal.Busy, "it goes when the guest agrees or reboots")
		c.types("letgo")
		if left := l.hears(func(r control.RunReport) bool { return r.Left != "" }); left.Left != d.disk("d1", "").DiskID {
			t.Errorf("left %+v", left)
		}
		wants(t, l.order(d.order(control.OrderPlug, "d1")), refusal.OK, "")
	}
}

// A full pool has the guest stand still, and go on by itself: each is told once. Another error of a disk is the guest's, and is said.
func TestStandsStill(t *testing.T) {
	t.Parallel()
	_, x, l, c := up(t, nil)
	c.types("bad")
	x.says("server web1: disk d1: a read failed: I/O error")
	c.types("full")
	if r := l.hears(func(r control.RunReport) bool { return r.Paused != "" }); r.Paused != "disk sys: a write failed: No space left on device" {
		t.Error(r.Paused)
	}
	x.says("server web1 stands still: disk sys")
	until(t, "it was told to go on more than once", func() bool { return strings.Count(c.String(), "<cont null>") > 3 })
	heard := len(l.heard)
	c.types("roomy")
	l.hears(func(r control.RunReport) bool { return r.Resumed })
	if len(l.heard) != heard+1 {
		t.Errorf("meanwhile it told %+v", l.heard[heard:])
	}
	x.says("server web1 goes on")
}
