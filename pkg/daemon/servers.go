package daemon

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/server"
	"nbdcrypt/pkg/volume"
)

// serverView is a server as the API shows it.
func (d *Daemon) serverView(ctx context.Context, s server.Server) control.Server {
	view := control.Server{ID: s.ID.String(), Name: s.Name, Project: s.Project, Status: string(s.Status), CPUs: s.CPUs, Memory: s.Memory, Network: s.Network,
		Image: sourceView(s.Image), Disks: []control.ServerDisk{}, Group: refOf(s.Group), Created: s.Created, Ended: s.Ended, Warnings: s.Warnings}
	if run := s.Run; run != nil {
		since := run.Since
		view.By, view.PID, view.Console, view.Accelerator, view.Since = run.By, run.PID, run.Console, run.Accelerator, &since
	}
	for _, disk := range s.Disks {
		shown, warning := d.serverDisk(ctx, s, disk)
		view.Disks = append(view.Disks, shown)
		if warning != "" {
			view.Warnings = append(view.Warnings, warning)
		}
	}
	if s.Paused != "" {
		view.Warnings = append(view.Warnings, "the guest stands still: "+s.Paused)
	}
	if s.Failing != "" {
		view.Warnings = append(view.Warnings, "it has ended, and its disks can't be detached yet: "+s.Failing+"; `nbdcrypt server stop "+s.Name+"` tries it again")
	}
	return view
}

// serverDisk is one of its disks. One that can't be read is shown with what the server knows of it.
func (d *Daemon) serverDisk(ctx context.Context, s server.Server, disk server.Disk) (view control.ServerDisk, warning string) {
	view = control.ServerDisk{Role: disk.Role, ID: disk.ID.String(), Name: disk.Name, Status: string(volume.Damaged)}
	v, err := d.volumes.Get(ctx, s.Project, view.ID)
	if err != nil {
		if s.Status == server.Creating && refusal.CodeOf(err) == refusal.NotFound {
			view.Status = string(volume.Creating)
			return view, ""
		}
		return view, "disk " + disk.Name + ": " + refusal.From(err).Message
	}
	view.Name, view.Size, view.Encrypted, view.Key, view.Status = v.Name, v.Size, v.Encrypted, underKey(v.Key), string(v.Status)
	if v.Key == nil {
		return view, ""
	}
	if r := refusal.From(v.Key.May(keystore.Use)); r != nil {
		then := "the server can't start"
		if v.Attachment != nil {
			then = "the server goes on until it is stopped, and can't start again"
		}
		return view, fmt.Sprintf("%s: disk %s: %s; %s", then, v.Name, r.Message, r.Hint)
	}
	return view, ""
}

func sourceView(s *volume.Source) *control.DiskSource {
	if s == nil {
		return nil
	}
	return &control.DiskSource{Kind: s.Kind, ID: s.ID.String(), Name: s.Name}
}

func refOf(n *server.Named) *control.Ref {
	if n == nil {
		return nil
	}
	return &control.Ref{ID: n.ID.String(), Name: n.Name}
}

// shownServer is a server after a change.
func (d *Daemon) shownServer(c *call, s server.Server, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return d.serverView(context.WithoutCancel(c.ctx), s), nil
}

// server is the server that the path names.
func (c *call) server() string { return c.http.PathValue("server") }

func (d *Daemon) serverList(c *call) (any, error) {
	return control.Stream(func(next func(any) error) error {
		return d.servers.List(c.ctx, c.project, func(s server.Server) error { return next(d.serverView(c.ctx, s)) })
	}), nil
}

func (d *Daemon) serverShow(c *call) (any, error) {
	s, err := d.servers.Get(c.ctx, c.project, c.server())
	return d.shownServer(c, s, err)
}

// serverCreate makes a server. Where its system disk is a copy of the image that is a job.
func (d *Daemon) serverCreate(c *call) (any, error) {
	var in control.ServerCreate
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	spec, copies, err := d.serverSpec(c, in)
	if err != nil {
		return nil, err
	}
	if err := roomForDisk(); err != nil {
		return nil, err
	}
	if !copies {
		s, err := d.servers.Create(c.ctx, c.request, spec, volume.Work{})
		return d.shownServer(c, s, err)
	}
	return d.startJob(c, control.Job{Verb: "server create", Resource: in.Name, Unit: "bytes"}, func(ctx context.Context, progress func(done, total int64)) (any, error) {
		s, err := d.servers.Create(ctx, c.request, spec, d.workOf(c, "server create", c.resource(), progress, nil))
		return d.shownServer(c, s, err)
	})
}

// serverSpec is what a new server is to be. What the caller left open the image decides where it is encrypted (rule A24), else the project (rules A25, C1).
func (d *Daemon) serverSpec(c *call, in control.ServerCreate) (spec server.Spec, copies bool, err error) {
	spec = server.Spec{Project: c.project, Name: in.Name, Image: in.Image, AskedEncrypted: in.System.Encrypted, CPUs: in.CPUs, Memory: in.Memory, Network: in.Network}
	image, err := d.volumes.Point(c.ctx, volume.ImageKind, c.project, in.Image)
	if err != nil {
		return spec, false, err
	}
	if image.Encrypted {
		spec.System, err = d.asNamed(c, in.System)
	} else {
		spec.System, err = d.diskSpec(c, in.System)
		copies = spec.System.Encrypted
	}
	if err == nil {
		spec.Data, err = d.dataSpecs(c, in.Data)
	}
	return spec, copies, err
}

// asNamed is a disk that its image decides about: what the caller named is held against that.
func (d *Daemon) asNamed(c *call, in control.NewDisk) (spec server.DiskSpec, err error) {
	spec = server.DiskSpec{Size: in.Size, SectorSize: in.SectorSize}
	if in.Key != "" {
		var key keystore.Info
		if key, err = d.keys.Key(c.ctx, c.project, in.Key); err == nil {
			spec.Key = key.ID
		}
	}
	return spec, err
}

// diskSpec is a disk that whoever makes it decides about. What is left open the project decides (rule C1).
func (d *Daemon) diskSpec(c *call, in control.NewDisk) (spec server.DiskSpec, err error) {
	spec = server.DiskSpec{Size: in.Size, SectorSize: in.SectorSize}
	if in.Encrypted != nil && !*in.Encrypted && in.Key != "" {
		return spec, refusal.New(refusal.Usage, "leave out the key, or have the disk encrypted", "a plain disk has no key")
	}
	spec.Encrypted, spec.Key, err = d.choice(c, control.DiskCreate{Encrypted: in.Encrypted, Key: in.Key})
	return spec, err
}

func (d *Daemon) dataSpecs(c *call, in []control.NewDisk) (list []server.DiskSpec, err error) {
	for _, disk := range in {
		spec, err := d.diskSpec(c, disk)
		if err != nil {
			return nil, err
		}
		spec.SectorSize = cmp.Or(spec.SectorSize, defaultSector)
		list = append(list, spec)
	}
	return list, nil
}

// serverDelete deletes a server that is stopped, with its disks unless they are to be kept.
func (d *Daemon) serverDelete(c *call) (any, error) {
	s, err := d.servers.Get(c.ctx, c.project, c.server())
	if err != nil {
		return nil, err
	}
	if err := mayDelete(s); err != nil {
		return nil, err
	}
	keep := c.flag(control.QueryKeepDisks)
	if !c.yes() {
		return nil, refusal.New(refusal.Confirm, "repeat it with --yes to do it", "server %s will be deleted%s", s.Name, fate(s, keep))
	}
	err = d.servers.Delete(c.ctx, c.request, c.project, s.ID.String(), keep)
	d.tidySoon()
	return nil, err
}

// mayDelete refuses what nobody should be asked about first.
func mayDelete(s server.Server) error {
	switch {
	case s.Group != nil:
		return refusal.New(refusal.Busy, "run `nbdcrypt scaling group scale "+s.Group.Name+" N`, which takes the newest members away", "server %s is a member of group %s", s.Name, s.Group.Name)
	case s.Status == server.Starting || s.Status == server.Running || s.Status == server.Stopping:
		return refusal.New(refusal.Busy, "run `nbdcrypt server stop "+s.Name+"` first", "server %s is %s and can't be deleted", s.Name, s.Status)
	}
	return nil
}

// fate says what becomes of the disks of a server that is deleted.
func fate(s server.Server, keep bool) string {
	var names []string
	for _, disk := range s.Disks {
		names = append(names, disk.Name)
	}
	switch {
	case len(names) == 0:
		return ""
	case keep:
		return ", and its disks stay (" + strings.Join(names, ", ") + ")"
	}
	return " with its disks (" + strings.Join(names, ", ") + ") and their snapshots, and their data can't be restored"
}

// held refuses, before anybody is asked for a yes, to delete a disk or an image that a server or a scaling configuration needs.
func (d *Daemon) held(c *call, kind, id string) error {
	parsed, err := uuid.Parse(id)
	if err != nil {
		return nil
	}
	return d.catalog.View(c.ctx, func(r catalog.Reader) error { return server.Held(r, kind, parsed) })
}

// serverOf is the server that has a disk, as `disk show` tells; nil where none has.
func (d *Daemon) serverOf(ctx context.Context, disk string) (*control.DiskServer, error) {
	id, err := uuid.Parse(disk)
	if err != nil {
		return nil, nil
	}
	s, role, err := d.servers.OfDisk(ctx, id)
	if err != nil || s == nil {
		return nil, err
	}
	return &control.DiskServer{ID: s.ID.String(), Name: s.Name, Role: role}, nil
}

// systemDisk is the disk that an image of a server is made of.
func (d *Daemon) systemDisk(c *call, ref string) (string, error) {
	s, err := d.servers.Get(c.ctx, c.project, ref)
	if err != nil {
		return "", err
	}
	for _, disk := range s.Disks {
		if disk.Role == server.SystemRole {
			return disk.ID.String(), nil
		}
	}
	return "", refusal.New(refusal.Busy, "give it one with `nbdcrypt server attach "+s.Name+" DISK --system`", "server %s has no system disk", s.Name)
}
