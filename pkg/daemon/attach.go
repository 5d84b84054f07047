package daemon

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// drainTime bounds how long a detach waits for requests in flight.
const drainTime = 20 * time.Second

// attachmentViews are the attachments of a disk as the API shows them.
func (d *Daemon) attachmentViews(a *volume.Attachment) (views []control.Attachment) {
	e := d.exports.get(a)
	for _, share := range d.volumes.SharesOf(a) {
		v := control.Attachment{ID: share.ID.String(), URI: d.uri(a, e), Since: share.Since, ReadOnly: share.ReadOnly, By: share.By, Allow: []string{},
			Device: deviceOf(share.Device), Mount: share.Mount}
		if e != nil {
			v.Clients = e.export.Clients()
			v.Allow = d.exports.allowed(e, share.ID)
		}
		views = append(views, v)
	}
	return views
}

// uri is where an attached disk is; empty for a server's, whose export has a secret name. e may be nil.
func (d *Daemon) uri(a *volume.Attachment, e *exported) string {
	if d.leases.holder(a.Disk) != nil || e != nil && e.leased {
		return ""
	}
	return control.URI(control.ExportName(a.Project, a.Name), d.nbdPath())
}

func (d *Daemon) attachCall(c *call) (any, error) {
	var in control.Attach
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	allow, err := guestsOf(in.Allow)
	if err != nil {
		return nil, err
	}
	if err := mayBeAt(c, in); err != nil {
		return nil, err
	}
	from, err := continues(in.Continues)
	if err != nil {
		return nil, err
	}
	if err := roomForDisk(); err != nil {
		return nil, err
	}
	id := ""
	a, err := d.volumes.Attach(c.ctx, c.request, volume.AttachSpec{
		Project: c.project, Disk: c.disk(), By: c.caller.User, ReadOnly: in.ReadOnly, Device: in.Device, Mount: in.Mount, Continues: from,
		Released: func(disk string, key *keystore.KeyVersionRef) error {
			ref := ""
			if key != nil {
				ref = key.String()
				if err := c.stillOnly(key.ID); err != nil {
					return err
				}
			}
			return d.recordRelease(c, "attach", disk, ref)
		},
		Attached: func(a *volume.Attachment, share volume.Share) {
			id = share.ID.String()
			d.exports.add(a, opening{share.ID, c.caller.UID, allow, in.Allow})
		},
		Wiping: (&wipe{daemon: d, call: c}).wiping,
	})
	if err != nil {
		return nil, d.becauseOfServer(c, err)
	}
	d.fillSoon(a.Project, a.Disk.String(), a.Name)
	warnings := slices.Clone(a.Warnings)
	if in.Device != "" && !d.flusher {
		warnings = append(warnings, flusherWarning)
	}
	return control.Attached{Disk: a.Name, DiskID: a.Disk.String(), Attachment: id, Epoch: a.Epoch(), Export: control.ExportName(a.Project, a.Name), URI: d.uri(a, nil),
		Device: deviceOf(in.Device), Mount: in.Mount, ReadOnly: a.ReadOnly, Unclean: a.Unclean, Warnings: warnings}, nil
}

// guestsOf reads whom an export is opened to.
func guestsOf(names []string) (list []access.Guest, err error) {
	for _, name := range names {
		g, err := access.ParseGuest(name)
		if err != nil {
			return nil, err
		}
		list = append(list, g)
	}
	return list, nil
}

func (d *Daemon) detachCall(c *call) (any, error) {
	host, err := d.volumes.Elsewhere(c.ctx, c.project, c.disk())
	if err != nil {
		return nil, err
	}
	if host != "" {
		return d.seize(c, host)
	}
	spec := volume.DetachSpec{Project: c.project, Disk: c.disk(), Attachment: c.http.URL.Query().Get(control.QueryAttachment),
		Stranding: func(key keystore.Info) error {
			if c.yes() {
				return nil
			}
			return lastDetach(c.disk(), key)
		}}
	if d.stranger(c) {
		spec.By = c.caller.User
	}
	if c.asks() {
		return d.wouldDetach(c, spec)
	}
	out, w, err := d.detach(c, spec)
	if err == nil {
		out.Warnings = append(out.Warnings, d.paused(c)...)
	}
	if err != nil || w.search == nil || !c.attest() {
		return out, err
	}
	return d.awaitSearch(c, out, w)
}

// wouldDetach tells what a detach would end. It did nothing, so that nothing of it is recorded.
func (d *Daemon) wouldDetach(c *call, spec volume.DetachSpec) (out control.Detached, err error) {
	var held error
	spec.Asking = func(a *volume.Attachment, of volume.Share, left int) {
		out = detached(a, of)
		out.Left = left
		held = d.heldByServer(a)
	}
	if _, err = d.volumes.Detach(c.ctx, c.request, spec); err == nil {
		err = held
	}
	c.recorded = err == nil
	return out, err
}

// lastDetach asks for a yes where a disk could not be attached again (rule A23).
func lastDetach(disk string, key keystore.Info) error {
	r := refusal.From(key.May(keystore.Use))
	if key.State == 0 && !key.Unreadable {
		return refusal.New(refusal.Confirm, "copy what you need of it first; then repeat it with --yes",
			"once detached, disk %s can never be attached again: its %s", disk, r.Message)
	}
	return refusal.New(refusal.Confirm, r.Hint+" first, or repeat it with --yes", "once detached, disk %s can't be attached again: its %s", disk, r.Message)
}

// seize ends an attachment that another host left in the catalog, if the caller vouches for that host's end.
func (d *Daemon) seize(c *call, host string) (any, error) {
	v, err := d.volumes.Get(c.ctx, c.project, c.disk())
	if err != nil {
		return nil, err
	}
	if !c.yes() {
		return nil, refusal.New(refusal.Confirm, "detach it there; or add --yes if that host is gone, or is this one under an older name",
			"disk %s is attached on host %s: if that host still writes to it, its data is lost", v.Name, host)
	}
	if c.asks() {
		c.recorded = true
		return control.Detached{Disk: v.Name, DiskID: v.ID}, nil
	}
	return control.Detached{Disk: v.Name, DiskID: v.ID, Warnings: []string{"the attachment on host " + host + " is taken for ended; what was not flushed there is lost"}},
		d.volumes.Seize(c.ctx, c.request, c.project, c.disk())
}

// detach ends one attachment of a disk. With the last it drains the export, then lets the disk go: clients hear ESHUTDOWN from then on.
func (d *Daemon) detach(c *call, spec volume.DetachSpec) (out control.Detached, w *wipe, err error) {
	w = &wipe{daemon: d, call: c}
	spec.Wiping = w.wiping
	spec.Leave = func(a *volume.Attachment, of volume.Share) {
		out = detached(a, of)
		out.Left = len(d.volumes.SharesOf(a))
		out.Clients = d.exports.leave(a, of.ID)
	}
	spec.Drain = func(a *volume.Attachment) error {
		of := d.volumes.SharesOf(a)[0]
		out = detached(a, of)
		if err := d.mayEnd(c, a, of); err != nil && !spec.All {
			return err
		}
		return d.drain(c.ctx, a, &out.Clients)
	}
	out.Warnings, err = d.volumes.Detach(c.ctx, c.request, spec)
	if id, bad := uuid.Parse(out.DiskID); err == nil && bad == nil {
		d.leases.lost(id)
	}
	return out, w, err
}

// detached is what a detach tells of the attachment that ends.
func detached(a *volume.Attachment, of volume.Share) control.Detached {
	return control.Detached{Disk: a.Name, DiskID: a.Disk.String(), Attachment: of.ID.String(), Device: deviceOf(of.Device), Mount: of.Mount, By: of.By}
}

// hangUp lets go of a kernel that has a disk as a device, or of a server that runs on it, without a word: its requests wait for the next daemon then.
// ESHUTDOWN would be an error of the device to it, and end a file system that is mounted.
func (d *Daemon) hangUp(ctx context.Context, a *volume.Attachment) {
	e := d.exports.get(a)
	if e == nil || !e.leased && !slices.ContainsFunc(d.volumes.SharesOf(a), func(s volume.Share) bool { return s.Device != "" }) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	if err := e.export.HangUp(ctx); err != nil {
		d.o.Log.Warn("clients are still there", "disk", a.Name, "err", e.nameless(err))
	}
}

func (d *Daemon) drain(ctx context.Context, a *volume.Attachment, clients *int) error {
	e := d.exports.get(a)
	if e == nil {
		return nil
	}
	*clients = e.export.Clients()
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	if err := e.export.Drain(ctx); err != nil {
		return refusal.New(refusal.Busy, "see why the storage does not answer, then detach again; new requests are refused already",
			"requests are still in flight after %v: %w", drainTime, e.nameless(err))
	}
	d.exports.remove(a)
	return nil
}
