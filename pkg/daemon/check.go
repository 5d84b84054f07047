package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/catalog"
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
	all, err := d.seesAll(c)
	if err != nil {
		return nil, err
	}
	return d.startJob(c, control.Job{Verb: "check", Resource: in.Disk, Unit: "bytes"}, func(ctx context.Context, progress func(done, total int64)) (any, error) {
		if all && in.Disk == "" {
			return d.runCheck(ctx, "", "", progress)
		}
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

// runCheck checks a disk, a project or, where it is empty, everything. What is found in other projects is not told.
// damaged counts what is damaged of a kind.
func (f *findings) damaged(what string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range f.list {
		if x.What == what && x.Severity == keystore.Damage {
			n++
		}
	}
	return n
}

func (d *Daemon) runCheck(ctx context.Context, project, disk string, progress func(done, total int64)) (any, error) {
	found := &findings{list: []control.Finding{}}
	report := control.CheckReport{}
	in, err := d.within(ctx, project)
	if err != nil {
		return nil, err
	}
	report.Keys, err = d.keys.Verify(ctx, func(p keystore.Problem) {
		if in(p) {
			found.add(control.Finding(p))
		}
	})
	if err == nil && project != "" {
		report.Keys, err = d.keys.CountKeys(ctx, project)
	}
	if err != nil {
		return nil, err
	}
	report.KeysOpen = report.Keys - found.damaged("key")
	tell := func(p volume.Problem) {
		found.add(control.Finding{Severity: p.Severity, What: p.What, Where: p.Where, Problem: p.Problem, Next: p.Next})
	}
	disks, err := d.volumes.Check(ctx, project, disk, tell, progress)
	if err == nil && disk == "" {
		err = d.servers.Check(ctx, project, tell)
	}
	if err == nil && project == "" && disk == "" {
		err = d.checkRecords(ctx, found)
	}
	if err != nil {
		return nil, err
	}
	report.Disks, report.DisksOpen, report.Points, report.PointsOpen = disks.Disks, disks.Open, disks.Points, disks.PointsOpen
	report.Blocks, report.Findings = disks.Blocks, found.list
	return report, nil
}

// within tells which findings of the key store are about a project: its keys with their aliases, and the data keys of its disks and points.
func (d *Daemon) within(ctx context.Context, project string) (func(keystore.Problem) bool, error) {
	if project == "" {
		return func(keystore.Problem) bool { return true }, nil
	}
	disks, err := d.volumes.IDs(ctx, project)
	return func(p keystore.Problem) bool {
		parts := strings.Split(p.Where, "/")
		return len(parts) > 2 && (parts[0] == "key" && parts[1] == project || parts[0] == "alias" && parts[2] == project ||
			parts[0] == "dek" && disks[parts[2]])
	}, err
}

// checkRecords looks at the records that neither keys nor disks are made of.
func (d *Daemon) checkRecords(ctx context.Context, found *findings) error {
	tell := func(name string, err error) {
		kind, _, _ := strings.Cut(name, "/")
		next := "restore the state directory from a backup; what depends on this record is refused until then"
		if kind == "clock" {
			next = "run `nbdcrypt clock accept` if the clock is right"
		}
		found.add(control.Finding{Severity: keystore.Damage, What: kind, Where: name, Problem: err.Error(), Next: next})
	}
	if err := d.access.Unreadable(ctx, tell); err != nil {
		return err
	}
	return d.catalog.View(ctx, func(r catalog.Reader) error {
		if err := lostProjects(r, tell); err != nil {
			return err
		}
		for _, prefix := range []string{"grant/", "uses", "clock/", "audit/"} {
			err := catalog.Walk(r, prefix, func(p catalog.Pair, err error) error {
				if err != nil {
					tell(p.Key, err)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// lostProjects tells of projects that have keys and no record.
func lostProjects(r catalog.Reader, tell func(name string, err error)) error {
	seen := map[string]bool{control.DefaultProject: true}
	return catalog.EachName(r, "key/", func(key string) error {
		project := strings.Split(key, "/")[1]
		if seen[project] {
			return nil
		}
		seen[project] = true
		names, err := r.Names("project/"+project, "", 1)
		if err == nil && !slices.Contains(names, "project/"+project) {
			tell("project/"+project, fmt.Errorf("%w: it is missing, and the project has keys", catalog.ErrDamaged))
		}
		return err
	})
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
