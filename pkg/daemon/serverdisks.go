package daemon

import (
	"context"
	"errors"
	"time"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/server"
)

// plugTime is how long a runner may take to plug or unplug a disk: it gives the guest 30 s to agree.
const plugTime = 60 * time.Second

// serverAttach gives a server a disk. Where it runs the disk is attached and plugged first; what fails half-way is taken back.
func (d *Daemon) serverAttach(c *call) (any, error) {
	var in control.ServerDiskChange
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	plan, err := d.servers.PlanAttach(c.ctx, c.project, c.server(), in.Disk, in.System)
	if err != nil {
		return nil, err
	}
	defer plan.Free()
	if !plan.Running {
		s, err := plan.Commit(c.ctx, c.request)
		return d.shownServer(c, s, err)
	}
	l, err := d.leaseOf(plan.Server)
	if err != nil {
		return nil, err
	}
	c.ofOther(l)
	at, err := d.plug(c, l, plan.Disk)
	if err != nil {
		return nil, err
	}
	s, err := plan.Commit(c.ctx, c.request)
	if err != nil {
		d.unplugInVain(l, at)
	}
	return d.shownServer(c, s, err)
}

// leaseOf is the lease of a server that runs, whose disks can be changed.
func (d *Daemon) leaseOf(s server.Server) (*lease, error) {
	l := d.leases.of(s.ID)
	if l == nil || l.isCut() || !l.isOpen() {
		return nil, refusal.New(refusal.Busy, "try again in a moment", "server %s is just being started or stopped", s.Name)
	}
	return l, nil
}

// plug attaches a disk for a server that runs, and has its runner plug it.
func (d *Daemon) plug(c *call, l *lease, disk server.Disk) (*leased, error) {
	if !d.leases.begin() {
		return nil, errStopping()
	}
	defer d.leases.rest()
	if err := roomForDisk(); err != nil {
		return nil, err
	}
	if err := l.precheck(c, []server.Disk{disk}); err != nil {
		return nil, err
	}
	at, err := l.attach(c, "server attach", disk, nil)
	if err != nil {
		return nil, err
	}
	if l.isCut() { // its end may not have seen this one
		return nil, l.takeAway(at, l.runnerGone())
	}
	d.exports.lend(at.a, l.export(at), l.c.caller.UID)
	one := l.runDisk(at)
	if _, err := l.order(c.ctx, control.RunOrder{Do: control.OrderPlug, Disk: &one}, plugTime); err != nil {
		return nil, l.takeAway(at, err)
	}
	d.fillSoon(at.a.Project, at.a.Disk.String(), at.a.Name)
	return at, nil
}

// takeAway detaches a disk that could not be plugged, and answers why that was. A daemon that stops leaves it to its stop.
func (l *lease) takeAway(at *leased, why error) error {
	if l.d.life.Err() != nil {
		return why
	}
	l.setGone(at)
	if err := l.let(at); err != nil {
		l.d.o.Log.Error("a disk that could not be plugged is attached still", "server", l.server.Name, "disk", at.a.Name, "err", err)
		r := refusal.From(why)
		return refusal.New(r.Code, r.Hint, "%w; and disk %s could not be detached: %w", why, at.a.Name, err)
	}
	return why
}

// unplugInVain takes back a disk that was plugged, and that the server's record could not be given.
func (d *Daemon) unplugInVain(l *lease, at *leased) {
	if !d.leases.begin() {
		return
	}
	defer d.leases.rest()
	one := l.runDisk(at)
	if _, err := l.order(context.Background(), control.RunOrder{Do: control.OrderUnplug, Disk: &one}, plugTime); err != nil {
		d.o.Log.Error("a disk that is not the server's is plugged still", "server", l.server.Name, "disk", at.a.Name, "err", err)
		return // the guest has it until its end
	}
	_ = l.takeAway(at, errors.New("the server's record could not be written"))
}

// serverDetach takes a disk from a server. Where it runs the guest has to give it away first. One that can't be attached again asks (rule A23).
func (d *Daemon) serverDetach(c *call) (any, error) {
	var in control.ServerDiskChange
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	plan, err := d.servers.PlanDetach(c.ctx, c.project, c.server(), in.Disk)
	if err != nil {
		return nil, err
	}
	defer plan.Free()
	if plan.Running {
		if err := d.unplug(c, plan); err != nil {
			return nil, err
		}
	}
	s, err := plan.Commit(c.ctx, c.request)
	return d.shownServer(c, s, err)
}

// unplug has the guest of a server give a disk away, and detaches it.
func (d *Daemon) unplug(c *call, plan *server.Plan) error {
	l, err := d.leaseOf(plan.Server)
	if err != nil {
		return err
	}
	c.ofOther(l)
	at := l.disk(plan.Disk.ID)
	if at == nil {
		return nil // the run has not got it: it goes on from one that had not
	}
	if !c.yes() {
		if err := d.lastUnplug(c, plan.Disk); err != nil {
			return err
		}
	}
	if !d.leases.begin() {
		return errStopping()
	}
	defer d.leases.rest()
	if !l.isGone(at) {
		one := l.runDisk(at)
		if _, err := l.order(c.ctx, control.RunOrder{Do: control.OrderUnplug, Disk: &one}, plugTime); err != nil {
			return err
		}
		l.setGone(at)
	}
	return l.let(at)
}

func (d *Daemon) lastUnplug(c *call, disk server.Disk) error {
	v, err := d.volumes.Get(c.ctx, c.project, disk.ID.String())
	if err != nil || v.Key == nil || v.Key.State == keystore.Enabled {
		return err
	}
	return lastDetach(v.Name, *v.Key)
}
