package daemon

import (
	"context"
	"slices"
	"strings"
	"time"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/server"
)

const (
	// stopPatience is how long a guest may take to shut down where nothing is said, and stopAtMost how long anybody can have it take.
	stopPatience = 45 * time.Second
	stopAtMost   = time.Hour
	// runnerTime is how long a runner may take to do what it can do by itself, and to answer.
	runnerTime = 20 * time.Second
	// endTime is how long a stop waits for the disks to be detached.
	endTime = 2*drainTime + 5*time.Second
)

// serverStop has a server shut down, and waits until its disks are detached. One whose disks can't be attached again asks first (rule A23): while the guest still runs.
func (d *Daemon) serverStop(c *call) (any, error) {
	var in control.ServerStop
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	patience, err := patienceOf(in)
	if err != nil {
		return nil, err
	}
	s, err := d.servers.Get(c.ctx, c.project, c.server())
	if err != nil {
		return nil, err
	}
	l := d.leases.of(s.ID)
	if l == nil {
		return nil, refusal.New(refusal.Busy, "`nbdcrypt server show "+s.Name+"` tells how its last run ended", "server %s is %s and can't be stopped", s.Name, s.Status)
	}
	c.ofOther(l)
	if !c.yes() {
		if err := d.lastStop(c, s); err != nil {
			return nil, err
		}
	}
	warnings, err := l.stop(c.ctx, patience, in.Force)
	if err != nil {
		return nil, err
	}
	if s, err = d.servers.Get(context.WithoutCancel(c.ctx), c.project, s.ID.String()); err != nil {
		return nil, err
	}
	view := d.serverView(context.WithoutCancel(c.ctx), s)
	view.Warnings = append(warnings, view.Warnings...)
	return view, nil
}

func patienceOf(in control.ServerStop) (time.Duration, error) {
	if in.Timeout == "" {
		return stopPatience, nil
	}
	d, err := time.ParseDuration(in.Timeout)
	if err != nil || d < 0 || d > stopAtMost {
		return 0, refusal.New(refusal.Usage, "give one such as 45s, of at most an hour", "%.40q is no time to wait for a guest", in.Timeout)
	}
	return d, nil
}

// ofOther notes for the audit whose run it is that a call is about, where that is somebody else's.
func (c *call) ofOther(l *lease) {
	if l != nil && l.c.caller.UID != c.caller.UID {
		c.about = strings.TrimSpace(c.about + " run by " + l.c.caller.User)
	}
}

// lastStop asks for a yes where a server could not start again: the keys of its disks forbid it.
func (d *Daemon) lastStop(c *call, s server.Server) error {
	var said []string
	hint := ""
	for _, disk := range s.Disks {
		v, err := d.volumes.Get(c.ctx, c.project, disk.ID.String())
		if err != nil || v.Key == nil || v.Key.State == keystore.Enabled {
			continue // what can't be read is told at the next start
		}
		r := refusal.From(lastDetach(v.Name, *v.Key))
		said, hint = append(said, r.Message), r.Hint
	}
	if len(said) == 0 {
		return nil
	}
	return refusal.New(refusal.Confirm, hint, "once stopped, server %s can't start again: %s", s.Name, strings.Join(said, "; "))
}

// stop has a run end, and waits for that. What the caller should know of how it ended are warnings.
func (l *lease) stop(ctx context.Context, patience time.Duration, force bool) (warnings []string, err error) {
	if !l.isCut() {
		if warnings, err = l.askToStop(ctx, patience, force); err != nil {
			return nil, err
		}
	}
	if err := l.ended(endTime); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Concat(warnings, l.lost), nil
}

// askToStop has the runner end its guest. With force a runner that does not is left alone with it: its disks are taken away.
func (l *lease) askToStop(ctx context.Context, patience time.Duration, force bool) (warnings []string, err error) {
	if !l.isOpen() {
		return nil, refusal.New(refusal.Busy, "try again in a moment", "server %s is just being started", l.server.Name)
	}
	l.run.Stopping()
	order, limit := control.RunOrder{Do: control.OrderStop, Timeout: patience.String()}, patience+l.d.runnerTime
	if force {
		order, limit = control.RunOrder{Do: control.OrderKill}, l.d.runnerTime
	}
	in, err := l.order(ctx, order, limit)
	switch {
	case err == nil || l.isCut(): // it may have ended by itself
	case force && l.d.life.Err() == nil:
		warnings = append(warnings, "its disks were taken from it, since its runner did not switch it off: "+refusal.From(err).Message)
		l.d.leases.cut(l)
		l.hangUp()
	default:
		return nil, err
	}
	if in.Warning != "" {
		warnings = append(warnings, in.Warning)
	}
	// The runner closes its line by itself; one that does not must not keep the disks.
	timer := time.AfterFunc(l.d.runnerTime, l.hangUp)
	defer timer.Stop()
	select {
	case <-l.cut:
	case <-l.d.life.Done():
		return nil, errStopping()
	}
	return warnings, nil
}
