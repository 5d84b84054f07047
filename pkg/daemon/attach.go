package daemon

import (
	"context"
	"time"

	"nbdcrypt/keystore"
	"nbdcrypt/nbd"
	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// drainTime bounds how long a detach waits for requests in flight.
const drainTime = 20 * time.Second

// attachmentView is an attachment as the API shows it.
func (d *Daemon) attachmentView(a *volume.Attachment) control.Attachment {
	v := control.Attachment{URI: d.uri(a), Since: a.Since, ReadOnly: a.ReadOnly, By: a.By, Allow: []string{}}
	if e := d.exports.get(a); e != nil {
		v.Clients = e.export.Clients()
		v.Allow = append(v.Allow, e.allowNames...)
	}
	return v
}

func (d *Daemon) uri(a *volume.Attachment) string {
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
	if err := roomForDisk(); err != nil {
		return nil, err
	}
	a, err := d.volumes.Attach(c.ctx, c.request, volume.AttachSpec{
		Project: c.project, Disk: c.disk(), By: c.caller.User, ReadOnly: in.ReadOnly,
		Released: func(disk string, key *keystore.KeyVersionRef) error {
			ref := ""
			if key != nil {
				ref = key.String()
			}
			return d.recordRelease(c, "attach", disk, ref)
		},
		Attached: func(a *volume.Attachment) { d.exports.add(a, c.caller.UID, allow, in.Allow) },
		Wiping:   (&wipe{daemon: d, call: c}).wiping,
	})
	if err != nil {
		return nil, err
	}
	return control.Attached{Disk: a.Name, Export: control.ExportName(a.Project, a.Name), URI: d.uri(a),
		ReadOnly: a.ReadOnly, Warnings: a.Warnings}, nil
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
	stranded, err := d.volumes.StrandedKey(c.ctx, c.project, c.disk())
	if err != nil {
		return nil, err
	}
	if stranded != nil && !c.yes() {
		return nil, refusal.New(refusal.Confirm, "enable the key first, or repeat it with --yes",
			"once detached, disk %[2]s can't be attached again while its key %[1]s is %[3]s", stranded.Alias, c.disk(), stateWord(*stranded))
	}
	out, w, err := d.detach(c, c.disk())
	if err != nil || w.search == nil || !c.attest() {
		return out, err
	}
	return d.awaitSearch(c, out, w)
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
	return control.Detached{Disk: v.Name, Warnings: []string{"the attachment on host " + host + " is taken for ended; what was not flushed there is lost"}},
		d.volumes.Seize(c.ctx, c.request, c.project, c.disk())
}

// detach drains the export, then lets the disk go. Clients hear ESHUTDOWN from then on.
func (d *Daemon) detach(c *call, disk string) (out control.Detached, w *wipe, err error) {
	w = &wipe{daemon: d, call: c}
	out.Warnings, err = d.volumes.Detach(c.ctx, c.request, volume.DetachSpec{Project: c.project, Disk: disk, Wiping: w.wiping,
		Drain: func(a *volume.Attachment) error {
			out.Disk = a.Name
			return d.drain(c.ctx, a, &out.Clients)
		}})
	return out, w, err
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
			"requests are still in flight after %v: %w", drainTime, err)
	}
	d.exports.remove(a)
	return nil
}

// exportOf makes the export of an attachment.
func exportOf(a *volume.Attachment) *nbd.Export {
	return nbd.NewExport(control.ExportName(a.Project, a.Name), a.Device, nbd.Options{ReadOnly: a.ReadOnly})
}
