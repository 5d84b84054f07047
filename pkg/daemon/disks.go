package daemon

import (
	"fmt"

	"github.com/docker/go-units"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// defaultSector suits every client and can't tear a neighbour on power loss.
const defaultSector = 512

// diskView is a disk as the API shows it.
func (d *Daemon) diskView(v volume.Disk) control.Disk {
	view := control.Disk{ID: v.ID, Name: v.Name, Project: v.Project, Size: v.Size, SectorSize: v.SectorSize,
		Encrypted: v.Encrypted, HideHoles: v.HideHoles, Status: string(v.Status), Created: v.Created, Layers: []control.DiskLayer{},
		Attachments: []control.Attachment{}, Warnings: v.Warnings}
	if v.Key != nil {
		view.Key = &control.DiskKey{ID: v.Key.ID, Alias: v.Key.Alias, State: stateWord(*v.Key)}
	}
	for _, l := range v.Layers {
		view.Layers = append(view.Layers, control.DiskLayer{ID: l.ID, Segments: append([]string{}, l.Segments...)})
	}
	if a := v.Attachment; a != nil {
		view.Attachments = append(view.Attachments, d.attachmentView(a))
	}
	return view
}

// stateWord is a key's state; a key that is not there any more has none.
func stateWord(k keystore.Info) string {
	if k.State == 0 {
		return "Deleted"
	}
	return k.State.String()
}

func (d *Daemon) diskCreate(c *call) (any, error) {
	var in control.DiskCreate
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	spec := volume.Spec{Project: c.project, Name: in.Name, Size: in.Size, SectorSize: in.SectorSize, Key: in.Key,
		Encrypted: in.Key != "", HideHoles: in.HideHoles}
	if in.Encrypted != nil {
		spec.Encrypted = *in.Encrypted
	}
	if spec.SectorSize == 0 {
		spec.SectorSize = defaultSector
	}
	if err := roomForDisk(); err != nil { // also to take back half a disk descriptors are needed
		return nil, err
	}
	v, err := d.volumes.Create(c.ctx, c.request, spec)
	return d.diskView(v), err
}

func (d *Daemon) diskList(c *call) (any, error) {
	disks, err := d.volumes.List(c.ctx, c.project)
	views := make([]control.Disk, len(disks))
	for i, v := range disks {
		views[i] = d.diskView(v)
	}
	return views, err
}

func (d *Daemon) diskShow(c *call) (any, error) {
	v, err := d.volumes.Get(c.ctx, c.project, c.disk())
	return d.diskView(v), err
}

func (d *Daemon) diskExtend(c *call) (any, error) {
	var in control.DiskExtend
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	v, err := d.volumes.Extend(c.ctx, c.request, c.project, c.disk(), in.Size)
	return d.diskView(v), err
}

// nameOf says which disk a question is about, so that nobody says yes to the wrong one.
func nameOf(v volume.Disk) string {
	kind := "plain"
	if v.Encrypted {
		kind = "encrypted"
	}
	return fmt.Sprintf("disk %s (%s, %s)", v.Name, units.CustomSize("%.4g %s", float64(v.Size), 1024, []string{"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"}), kind)
}

func (d *Daemon) diskDelete(c *call) (any, error) {
	v, err := d.volumes.Get(c.ctx, c.project, c.disk())
	if err != nil {
		return nil, err
	}
	if !c.yes() {
		return nil, refusal.New(refusal.Confirm, "repeat it with --yes to do it", "%s will be deleted, and its data can't be restored", nameOf(v))
	}
	return nil, d.volumes.Delete(c.ctx, c.request, c.project, c.disk())
}
