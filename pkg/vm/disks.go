package vm

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/qmp"
	"nbdcrypt/pkg/refusal"
)

// ports is how many disks a guest can have: the system disk and 23 others.
const ports = 24

// drive is a disk that the guest has, or is about to have.
type drive struct {
	control.RunDisk
	number  int  // of its device and node in QEMU, which no other had
	port    int  // of the guest's bus
	ready   bool // the daemon knows that the guest has it
	leaving bool // the guest was asked to let go of it
	told    answer
	timer   *time.Timer
}

func (d *drive) device() string { return fmt.Sprintf("disk%d", d.number) }
func (d *drive) node() string   { return fmt.Sprintf("node%d", d.number) }
func (d *drive) bus() string    { return fmt.Sprintf("port%d", d.port) }

// disks are those of the server.
type disks struct {
	all  []*drive
	next int
}

// boot takes what the daemon lends at first. The system disk is the guest's first.
func (s *disks) boot(lent []control.RunDisk) error {
	if len(lent) > ports {
		return refusal.New(refusal.Failed, "detach some of them", "a server can have %d disks, and this one has %d", ports, len(lent))
	}
	for _, system := range []bool{true, false} {
		for _, d := range lent {
			if (d.Role == control.SystemDisk) == system {
				s.add(d).ready = true
			}
		}
	}
	return nil
}

// add gives a disk a port, or returns nil where none is free.
func (s *disks) add(disk control.RunDisk) *drive {
	for port := range ports {
		if !slices.ContainsFunc(s.all, func(d *drive) bool { return d.port == port }) {
			d := &drive{RunDisk: disk, number: s.next, port: port}
			s.all = append(s.all, d)
			s.next++
			return d
		}
	}
	return nil
}

func (s *disks) drop(gone *drive) {
	s.all = slices.DeleteFunc(s.all, func(d *drive) bool { return d == gone })
}

// by finds the drive that is so.
func (s *disks) by(is func(*drive) bool) *drive {
	if i := slices.IndexFunc(s.all, is); i >= 0 {
		return s.all[i]
	}
	return nil
}

func (s *disks) nameOf(node string) string {
	if d := s.by(func(d *drive) bool { return d.node() == node }); d != nil {
		return d.Name
	}
	return node
}

// plugged are copies, for who is beside the loop.
func (s *disks) plugged() (all []drive) {
	for _, d := range s.all {
		all = append(all, *d)
	}
	return all
}

// continues says how the daemon that went had lent the disks.
func (s *disks) continues() (all []control.Continues) {
	for _, d := range s.all {
		if d.ready {
			all = append(all, control.Continues{DiskID: d.DiskID, Epoch: d.Epoch})
		}
	}
	return all
}

// same tells whether what another daemon lends is what the guest has.
func (s *disks) same(lent []control.RunDisk) error {
	for _, d := range s.all {
		i := slices.IndexFunc(lent, func(l control.RunDisk) bool { return l.DiskID == d.DiskID })
		if d.ready && (i < 0 || lent[i].Export != d.Export || lent[i].Socket != d.Socket) {
			return refusal.New(refusal.Damaged, "start the server again", "the daemon does not lend disk %s any more as the guest has it", d.Name)
		}
	}
	return nil
}

// renew takes over how the disks are lent now, and returns the ids of those that the guest has not.
func (s *disks) renew(lent []control.RunDisk) (without []string) {
	for _, l := range lent {
		if d := s.by(func(d *drive) bool { return d.DiskID == l.DiskID && d.ready }); d != nil {
			d.Epoch = l.Epoch
		} else {
			without = append(without, l.DiskID)
		}
	}
	return without
}

// plug gives the guest a disk while it runs.
func (r *runner) plug(l *link, disk control.RunDisk, tell answer) {
	var d *drive
	if had := r.disks.by(func(d *drive) bool { return d.DiskID == disk.DiskID }); had == nil {
		d = r.disks.add(disk)
	} else {
		tell("", refusal.New(refusal.Busy, "it goes when the guest agrees or reboots", "the guest still has disk %s", disk.Name))
		return
	}
	if d == nil {
		tell("", refusal.New(refusal.Busy, "detach another first", "server %s has %d disks, and there can be no more", r.server.Name, ports))
		return
	}
	copied, wait := *d, r.Reconnect+daemonLate
	monitor := r.qemu.monitor
	r.beside(func(ctx context.Context) error { return plug(ctx, monitor, copied, wait) }, func(err error) {
		switch {
		case err != nil:
			r.disks.drop(d)
			err = refusal.New(refusal.Failed, "the runner's words in the system's log may tell more", "disk %s can't be given to server %s: %w", d.Name, r.server.Name, err)
		case l != r.link:
			r.letGo(d) // who ordered it went: nobody knows that the guest has it
		default:
			d.ready = true
		}
		tell("", err)
	})
}

func plug(ctx context.Context, q *qmp.Client, d drive, wait time.Duration) error {
	if err := q.Do(ctx, "blockdev-add", blockdev(d, wait), nil); err != nil {
		return err
	}
	err := q.Do(ctx, "device_add", device(d), nil)
	if err != nil {
		_ = q.Do(ctx, "blockdev-del", map[string]string{"node-name": d.node()}, nil)
	}
	return err
}

// unplug asks the guest to let go of a disk, and tells once it has, or has not within its time: then it may still do it later.
func (r *runner) unplug(id string, tell answer) {
	d := r.disks.by(func(d *drive) bool { return d.DiskID == id })
	switch {
	case d == nil:
		tell("", nil) // as if it had gone now
		return
	case !d.ready || d.told != nil:
		tell("", refusal.New(refusal.Busy, "try again in a moment", "disk %s is being given to the guest, or taken from it", d.Name))
		return
	}
	d.told = tell
	d.timer = r.after(r.pace.unplug, func() { r.stays(d, "has not let go of disk "+d.Name+" yet") })
	r.letGo(d)
}

// letGo asks the guest. That it was asked before is no error.
func (r *runner) letGo(d *drive) {
	again := d.leaving
	d.leaving = true
	id := d.device()
	monitor := r.qemu.monitor
	r.beside(func(ctx context.Context) error {
		return monitor.Do(ctx, "device_del", map[string]string{"id": id}, nil)
	}, func(err error) {
		if err == nil || again || d.told == nil {
			return
		}
		d.leaving = false
		d.answer(refusal.New(refusal.Failed, "", "disk %s can't be taken from server %s: %w", d.Name, r.server.Name, err))
	})
}

func (d *drive) answer(err error) {
	if d.told != nil {
		d.timer.Stop()
		d.told("", err)
		d.told = nil
	}
}

// stays tells that the guest keeps a disk.
func (r *runner) stays(d *drive, how string) {
	d.answer(refusal.New(refusal.Busy, "unmount it in the guest; or stop the server", "the guest %s; it goes when the guest agrees or reboots", how))
}

// driveOf is the drive that an event of a device is about.
func (r *runner) driveOf(data json.RawMessage) *drive {
	var e struct{ Device string }
	if json.Unmarshal(data, &e) != nil || e.Device == "" {
		return nil // a part of the device, which tells for itself
	}
	return r.disks.by(func(d *drive) bool { return d.device() == e.Device })
}

// keeps is a guest that says that it won't let go.
func (r *runner) keeps(data json.RawMessage) {
	if d := r.driveOf(data); d != nil {
		r.stays(d, "does not let go of disk "+d.Name)
	}
}

// unplugged is a guest that has let go of a disk: QEMU has, too, once its connection is closed.
func (r *runner) unplugged(data json.RawMessage) {
	d := r.driveOf(data)
	if d == nil {
		return
	}
	node := d.node()
	monitor := r.qemu.monitor
	r.beside(func(ctx context.Context) error {
		return monitor.Do(ctx, "blockdev-del", map[string]string{"node-name": node}, nil)
	}, func(err error) {
		if err != nil {
			r.Say("server %s: closing disk %s: %v", r.server.Name, d.Name, err)
		}
		r.disks.drop(d)
		if d.told != nil {
			d.answer(nil)
		} else {
			r.link.send(control.RunReport{Left: d.DiskID})
		}
	})
}
