package daemon

import (
	"context"
	"fmt"
	"os"
	"strings"

	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/audit"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// record puts a verb into the audit log. It is done by then: where the log can't be written that is said loudly, and no
// key is released any more, but a person can still detach and delete.
func (d *Daemon) record(c *call, verb, resource string, err error) {
	rec := recordOf(c, verb, resource, err)
	if d.kept.keep(rec, d.stranger(c), c.shut) {
		return
	}
	if e := d.write(c.ctx, rec); e != nil {
		d.cantRecord(rec, e)
	}
}

// recordOwn records what the daemon did on its own, such as key.deleted at its date. The resource of a verb of keys is the CMK's id.
func (d *Daemon) recordOwn(verb, project, resource string, err error) {
	c := &call{ctx: context.Background(), caller: d.self, pid: int32(os.Getpid()), request: newRequest(), project: project}
	if strings.HasPrefix(verb, "key.") {
		c.keyID = resource
	}
	d.record(c, verb, resource, err)
}

// canRecord refuses where the log could not take a record now. What the daemon does on its own and nobody can undo waits for it.
func (d *Daemon) canRecord() error {
	err := d.log.Ready()
	if err == nil {
		return nil
	}
	return refusal.New(refusal.CodeOf(err), "make room for the audit log, or mend it", "what is done could not be recorded, so it waits: %w", err)
}

func (d *Daemon) cantRecord(rec audit.Record, err error) {
	d.auditFailures.Add(1)
	d.o.Log.Error("the audit log can't be written", "verb", rec.Verb, "resource", rec.Resource, "err", err)
	d.unrecorded.Do(func() {
		d.warn("the audit log could not be written, so that not all that was done is in it; make room, or mend it: " + err.Error())
	})
}

// headFailed tells that the log's head could not be kept: records are good all the same, and the next one tries again.
func (d *Daemon) headFailed(err error) {
	d.o.Log.Error("the audit log's head can't be written", "err", err)
	d.headless.Do(func() {
		d.warn("the audit log's head could not be written, so that a cut of the log would not be found: " + err.Error())
	})
}

// recordRelease is record for a verb that releases a key: it must be durable before.
func (d *Daemon) recordRelease(c *call, verb, resource, key string) error {
	rec := recordOf(c, verb, resource, nil)
	rec.Key = key
	if err := d.write(c.ctx, rec); err != nil {
		d.auditFailures.Add(1)
		return refusal.New(refusal.CodeOf(err), "make room for the audit log, or mend it; until then no key is released",
			"the release of a key could not be recorded: %w", err)
	}
	c.recorded = true
	return nil
}

// startJob starts a call's work as a job, whose end is recorded and not its start: only then is known how it ended.
func (d *Daemon) startJob(c *call, about control.Job, work control.Work) (any, error) {
	resource := c.resource()
	if resource == "" {
		resource = about.Resource
	}
	about.Project, about.Request, about.By = c.project, c.request, c.caller.User
	c.started, c.recorded = true, true // before it runs: from then on the job reads the call
	job, err := d.jobs.Start(about, func(ctx context.Context, progress func(done, total int64)) (any, error) {
		result, err := work(ctx, progress)
		d.record(c, about.Verb, resource, err)
		return result, err
	})
	if err != nil {
		c.started, c.recorded = false, false
		return nil, err
	}
	return job, nil
}

// namers are the verbs whose call names in its body what it is about.
var namers = map[access.Action]bool{access.DiskCreate: true, access.SnapshotCreate: true, access.DiskRollback: true, access.ImageCreate: true, access.ImageCopy: true, access.BackupCreate: true, access.KeyCreate: true, access.ProjectCreate: true, access.CheckRun: true,
	access.ServerCreate: true, access.ServerAttach: true, access.ServerDetach: true, access.ConfigCreate: true, access.GroupCreate: true,
	access.RoleGrant: true, access.RoleRevoke: true, access.KeyGrantCreate: true, access.KeyGrantRevoke: true, access.KeyGrantRetire: true}

// namedIn is what a call's body names: a new disk, key or project, the disk to check, whose right. It is in the record also where the
// call is refused.
func namedIn(r route, c *call) string {
	if !namers[r.action] || r.is(upload) {
		return ""
	}
	var in map[string]any
	_ = control.PeekJSON(c.http, &in) // what is wrong with it the verb says
	var words []string
	for _, field := range []string{"name", "alias", "disk", "snapshot", "from_snapshot", "from_image", "from_backup", "server", "image", "config", "user", "role", "operation", "grant"} {
		if word, is := in[field].(string); is && word != "" {
			words = append(words, cut(word))
		}
	}
	return strings.Join(words, " ")
}

// keyNamed is the id of the CMK that a call names in its path, or for a new disk; empty where it names none or one that is not there.
func (d *Daemon) keyNamed(r route, c *call) string {
	ref := c.http.PathValue("key")
	if ref == "" && r.action != access.DiskCreate || !d.isOpen.Load() {
		return ""
	}
	if ref == "" {
		id, _ := d.keyOfNew(c) // what is wrong with it the verb says
		return id
	}
	key, err := d.keys.Key(c.ctx, c.project, ref)
	if err != nil {
		return ""
	}
	return key.ID
}

// keyOfAnswer takes note of the CMK that an answer is about, where the path named none.
func (c *call) keyOfAnswer(body any) {
	switch answer := body.(type) {
	case control.Key:
		if c.keyID == "" {
			c.keyID = answer.ID
		}
	case control.Snapshot:
		if answer.Key != nil {
			c.keyID = answer.Key.ID
		}
	case control.Image:
		if answer.Key != nil {
			c.keyID = answer.Key.ID
		}
	case control.Disk:
		if answer.Key != nil {
			c.keyID = answer.Key.ID
		}
	case control.Server:
		var keys []*control.DiskKey
		for _, disk := range answer.Disks {
			keys = append(keys, disk.Key)
		}
		c.keyOfAll(keys)
	case control.ScalingConfig:
		var keys []*control.DiskKey
		for _, disk := range answer.Disks {
			keys = append(keys, disk.Key)
		}
		c.keyOfAll(keys)
	}
}

// keyOfAll takes note of the one CMK that several disks are under, where it is one.
func (c *call) keyOfAll(keys []*control.DiskKey) {
	one := ""
	for _, key := range keys {
		if key != nil && one != "" && key.ID != one {
			return
		}
		if key != nil {
			one = key.ID
		}
	}
	if one != "" {
		c.keyID = one
	}
}

// recordOf is the record of a verb and how it ended.
func recordOf(c *call, verb, resource string, err error) audit.Record {
	rec := audit.Record{Request: c.request, UID: c.caller.UID, User: c.caller.User, PID: c.pid, Verb: verb,
		Project: cut(c.project), Resource: resource, Outcome: audit.OK, KeyID: c.keyID}
	if err != nil {
		r := refusal.From(err)
		rec.Outcome, rec.Code, rec.Message = audit.Refused, int(r.Code), cut(r.Message)
	}
	return rec
}

// write writes a record, also of a call whose caller has gone: nobody stays out of the log by hanging up.
func (d *Daemon) write(ctx context.Context, rec audit.Record) (err error) {
	ctx = context.WithoutCancel(ctx)
	if rec.Catalog, err = d.raw.Revision(ctx); err != nil {
		return err
	}
	_, err = d.log.Append(ctx, rec)
	return err
}

// ownRecord is a record of what the daemon does on its own.
func (d *Daemon) ownRecord(verb string) audit.Record {
	revision, err := d.raw.Revision(context.Background())
	if err != nil {
		d.o.Log.Error("reading the catalog's revision", "err", err)
	}
	return audit.Record{Request: newRequest(), UID: d.self.UID, User: d.self.User, Verb: verb,
		Resource: fmt.Sprintf("region %s", d.o.Region), Outcome: audit.OK, Catalog: revision}
}
