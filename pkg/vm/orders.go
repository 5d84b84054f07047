package vm

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/qmp"
	"nbdcrypt/pkg/refusal"
)

// answer tells who gave an order what came of it.
type answer func(warning string, err error)

// order does what the daemon says.
func (r *runner) order(l *link, o control.RunOrder) {
	if o.Bye || o.ID == 0 {
		return // the line ends by itself
	}
	tell := func(warning string, err error) {
		report := control.RunReport{ID: o.ID, Warning: warning}
		if err != nil {
			report.Error = control.ErrorOf(err)
		}
		if l == r.link {
			l.send(report)
		}
	}
	switch {
	case o.Do == control.OrderStop:
		r.waiting = append(r.waiting, func(warning string) { tell(warning, nil) })
		r.stop(patience(o.Timeout))
	case o.Do == control.OrderKill:
		r.waiting = append(r.waiting, func(warning string) { tell(warning, nil) })
		r.switchOff("the guest was switched off")
	case r.qemu == nil || r.anew || o.Disk == nil: // what begins again begins on the disks that it had
		tell("", refusal.New(refusal.Busy, "try again in a moment", "server %s does not run yet", r.server.Name))
	case o.Do == control.OrderPlug:
		r.plug(l, *o.Disk, tell)
	case o.Do == control.OrderUnplug:
		r.unplug(o.Disk.DiskID, tell)
	default:
		tell("", refusal.New(refusal.Failed, "is the daemon of another version than the runner?", "the runner of server %s does not know the order %q", r.server.Name, o.Do))
	}
}

func patience(s string) time.Duration {
	if d, err := time.ParseDuration(s); err == nil {
		return d
	}
	return DefaultPatience
}

// stopping is the time that a guest has to shut down.
type stopping struct {
	until time.Time
	timer *time.Timer
}

// stop asks the guest to shut down, and switches it off when it has not after a while.
func (r *runner) stop(within time.Duration) {
	if r.qemu == nil {
		r.abort(refusal.New(refusal.Failed, "", "the server was stopped before it ran"))
		return
	}
	until := time.Now().Add(within)
	if r.stopping != nil && r.stopping.until.Before(until) {
		return
	}
	first := r.stopping == nil
	if !first {
		r.stopping.timer.Stop()
	}
	r.stopping = &stopping{until, r.after(within, func() { r.impatient(within) })}
	if first {
		r.press()
	}
}

// press presses the power button.
func (r *runner) press() {
	monitor := r.qemu.monitor
	r.beside(func(ctx context.Context) error { return monitor.Do(ctx, "system_powerdown", nil, nil) }, func(error) {
		r.after(r.pressAgain, r.press)
	})
}

// impatient switches off a guest that did not do it itself.
func (r *runner) impatient(after time.Duration) {
	how := fmt.Sprintf("the guest had not shut down within %v, and was switched off", after)
	switch {
	case r.pause.why != "":
		how = fmt.Sprintf("the guest stood still (%s), so that it could not shut down within %v, and was switched off", r.pause.why, after)
	case r.outage != nil:
		how = fmt.Sprintf("the guest had no disks and did not shut down within %v, and was switched off", after)
	}
	if r.killed == "" {
		r.warning = how
	}
	r.switchOff(how)
}

// switchOff kills QEMU: a power cut for the guest. To ask QEMU to quit could take as long as its disks are away.
func (r *runner) switchOff(how string) {
	if r.killed == "" {
		r.killed = how
	}
	if r.qemu != nil {
		r.qemu.kill()
	} else {
		r.abort(refusal.New(refusal.Failed, "", "the server was stopped before it ran"))
	}
}

// event is what QEMU tells by itself.
func (r *runner) event(e qmp.Event) {
	switch e.Name {
	case "SHUTDOWN":
		var why struct{ Reason string }
		_ = json.Unmarshal(e.Data, &why)
		r.shutdown = why.Reason
	case "BLOCK_IO_ERROR":
		r.diskFailed(e.Data)
	case "STOP":
		r.halted()
	case "RESUME":
		r.resumed()
	case "DEVICE_DELETED":
		r.unplugged(e.Data)
	case "DEVICE_UNPLUG_GUEST_ERROR":
		r.keeps(e.Data)
	}
}

// qemuEnded says how QEMU ended, and ends the run.
func (r *runner) qemuEnded() {
	if r.anew && r.killed == "" && r.stopping == nil {
		r.tellStarted()
		r.beginAgain()
		return
	}
	err := r.result
	if r.anew && r.killed == "" {
		r.killed = "the guest could not go on, and was switched off"
	}
	if r.killed == "" {
		r.killed, err = r.qemu.how(r.shutdown)
	}
	if err == nil {
		r.tellStarted()
	} else if r.result == nil {
		err = refusal.New(refusal.Failed, "`nbdcrypt server show` tells more; start it again", "server %s has ended: %w", r.server.Name, err)
	}
	r.finish(err)
}
