package daemon

import (
	"context"
	"sync"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// check starts the search for damage as a job: it reads every block that holds data.
func (d *Daemon) check(c *call) (any, error) {
	var in control.Check
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	if in.Disk != "" {
		if _, err := d.volumes.Get(c.ctx, c.project, in.Disk); err != nil {
			return nil, err
		}
	}
	about := control.Job{Verb: "check", Resource: in.Disk, Project: c.project, Unit: "bytes", Request: c.request, By: c.caller.User}
	return d.jobs.Start(about, func(ctx context.Context, progress func(done, total int64)) (any, error) {
		return d.runCheck(ctx, c.project, in.Disk, progress)
	})
}

// findings gathers what checks find.
type findings struct {
	mu   sync.Mutex
	list []control.Finding
}

func (f *findings) add(x control.Finding) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, x)
}

func (d *Daemon) runCheck(ctx context.Context, project, disk string, progress func(done, total int64)) (any, error) {
	found := &findings{list: []control.Finding{}}
	report := control.CheckReport{}
	var err error
	report.Keys, err = d.keys.Verify(ctx, func(p keystore.Problem) { found.add(control.Finding(p)) })
	if err != nil {
		return nil, err
	}
	disks, blocks, err := d.volumes.Check(ctx, project, disk, func(p volume.Problem) { found.add(control.Finding(p)) }, progress)
	if err != nil {
		return nil, err
	}
	report.Disks, report.Blocks, report.Findings = disks, blocks, found.list
	return report, nil
}

// mayFollow tells whether a caller may see and cancel a job: its own, and for administrators all.
func (d *Daemon) mayFollow(c *call, j control.Job) bool {
	return j.By == c.caller.User || d.access.Check(c.ctx, c.caller, access.GrantCreate, j.Project) == nil
}

func (d *Daemon) jobList(c *call) (any, error) {
	list := []control.Job{}
	for _, j := range d.jobs.List() {
		if j.Project == c.project && d.mayFollow(c, j) {
			list = append(list, j)
		}
	}
	return list, nil
}

// job finds a job that the caller may follow; others are as if they were not there.
func (d *Daemon) job(c *call) (control.Job, error) {
	j, err := d.jobs.Get(c.ctx, c.http.PathValue("job"), 0, 0)
	if err == nil && !d.mayFollow(c, j) {
		return j, refusal.New(refusal.NotFound, "ask who started it", "no job %s of yours", j.ID)
	}
	return j, err
}

func (d *Daemon) jobShow(c *call) (any, error) {
	after, wait, err := control.Wait(c.http)
	if err != nil {
		return nil, err
	}
	j, err := d.job(c)
	if err != nil {
		return nil, err
	}
	return d.jobs.Get(c.ctx, j.ID, after, wait)
}

func (d *Daemon) jobCancel(c *call) (any, error) {
	j, err := d.job(c)
	if err != nil {
		return nil, err
	}
	return d.jobs.Cancel(j.ID)
}
