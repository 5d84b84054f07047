package server

import (
	"context"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// Run is a server's run, from Begin to End. It is this daemon's memory alone.
type Run struct {
	s      *Service
	server Server

	// The service's mu guards these.
	status          Status
	info            *RunInfo
	paused, failing string
}

// Begin puts a server into starting, until End. Refused where it is not stopped, has no system disk, or goes away with a scaling.
func (s *Service) Begin(ctx context.Context, project, ref string) (*Run, error) {
	was, err := servers.lookUp(ctx, s.c.Catalog, project, ref)
	if err != nil {
		return nil, err
	}
	run := &Run{s: s, status: Starting}
	if err := s.reserveRun(was, run); err != nil {
		return nil, err
	}
	// What was read before may be old by now.
	err = s.c.Catalog.View(ctx, func(r catalog.Reader) error {
		rec, err := servers.find(r, project, was.ID.String())
		if err == nil {
			err = mayRun(r, rec)
		}
		if err == nil {
			run.server = s.describe(r, rec, map[uuid.UUID]Named{})
		}
		return err
	})
	if err == nil {
		err = s.disksMayRun(ctx, run.server)
	}
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.runs, was.ID)
		return nil, servers.explain(was.Name, err)
	}
	return run, nil
}

// reserveRun has the server be started by nobody else, and nothing else be done to it.
func (s *Service) reserveRun(r serverRecord, run *Run) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.busy[r.ID]; now != "" {
		return refusal.New(refusal.Busy, wait, "server %s can't be started: it is %s", r.Name, now)
	}
	if other := s.runs[r.ID]; other != nil {
		return refusal.New(refusal.Busy, "`nbdcrypt server show "+r.Name+"` tells more; `nbdcrypt server stop "+r.Name+"` ends it", "server %s is %s, and can't be started", r.Name, other.status)
	}
	s.runs[r.ID] = run
	return nil
}

// mayRun refuses a server that is not whole, or is about to go.
func mayRun(r catalog.Reader, rec serverRecord) error {
	if rec.Status != Stopped {
		return refusal.New(refusal.Busy, "delete it with `nbdcrypt server delete "+rec.Name+"`; the daemon does so too when it starts", "server %s is not whole, and can't be started", rec.Name)
	}
	if rec.system() == nil {
		return refusal.New(refusal.Busy, "give it one with `nbdcrypt server attach "+rec.Name+" DISK --system`", "server %s has no system disk", rec.Name)
	}
	if rec.Group == uuid.Nil {
		return nil
	}
	g, err := groups.get(r, rec.Group)
	if err != nil {
		return groups.explain("of server "+rec.Name, err)
	}
	if g.Status != Available || g.Scaling.names(rec.Number) {
		return refusal.New(refusal.Busy, "`nbdcrypt scaling group show "+g.Name+"` tells more", "server %s can't be started: it goes away with a scaling of group %s", rec.Name, g.Name)
	}
	return nil
}

// disksMayRun refuses a server with a disk that is not there, or that several may have at once.
func (s *Service) disksMayRun(ctx context.Context, v Server) error {
	for _, d := range v.Disks {
		disk, err := s.c.Volumes.Get(ctx, v.Project, d.ID.String())
		if refusal.CodeOf(err) == refusal.NotFound {
			return refusal.New(refusal.Damaged, "take it from the server with `nbdcrypt server detach "+v.Name+" "+d.Name+"`, or restore it from a backup",
				"server %s can't be started: its disk %s is missing", v.Name, d.Name)
		}
		if err != nil {
			return err
		}
		if disk.Shared {
			return refuseShared(disk.Name)
		}
	}
	return nil
}

func refuseShared(disk string) error {
	return refusal.New(refusal.Busy, "use a disk that is not shared", "disk %s is shared, and servers have disks of their own", disk)
}

// Server is the server as it was when the run began.
func (r *Run) Server() Server { return r.server }

// change lets fn change the run, as long as it goes on.
func (r *Run) change(fn func()) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if r.s.runs[r.server.ID] == r {
		fn()
	}
}

// Running tells that QEMU runs.
func (r *Run) Running(info RunInfo) {
	r.change(func() {
		r.info = &info
		if r.status == Starting {
			r.status = Running
		}
	})
}

// Stopping tells that the run is about to end.
func (r *Run) Stopping() { r.change(func() { r.status = Stopping }) }

// Paused says why the guest stands still; empty, that it goes on.
func (r *Run) Paused(why string) { r.change(func() { r.paused = why }) }

// Failing says why the run can't come to its end, though its disks are to be detached; empty, that nothing keeps it from that any more.
func (r *Run) Failing(why string) {
	r.change(func() { r.status, r.failing = Stopping, why })
}

// End ends the run, and keeps why in memory. One that came to nothing has no why, and that of the one before it stays.
func (r *Run) End(why string) {
	r.change(func() {
		delete(r.s.runs, r.server.ID)
		if why != "" {
			r.s.ended[r.server.ID] = why
		}
	})
}

// describeRun adds what this run of the daemon knows.
func (s *Service) describeRun(v *Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v.Ended = s.ended[v.ID]
	run := s.runs[v.ID]
	if run == nil {
		return
	}
	v.Status, v.Paused, v.Failing = run.status, run.paused, run.failing
	if run.info != nil {
		info := *run.info
		v.Run = &info
	}
}
