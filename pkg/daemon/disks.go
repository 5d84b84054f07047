package daemon

import (
	"cmp"
	"fmt"

	"github.com/docker/go-units"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// defaultSector suits every client and can't tear a neighbour on power loss.
const defaultSector = 512

// diskView is a disk as the API shows it.
func (d *Daemon) diskView(v volume.Disk) control.Disk {
	view := control.Disk{ID: v.ID, Name: v.Name, Project: v.Project, Size: v.Size, SectorSize: v.SectorSize,
		Encrypted: v.Encrypted, HideHoles: v.HideHoles, Bootable: v.Bootable, Shared: v.Shared, Status: string(v.Status), Created: v.Created, Layers: []control.DiskLayer{},
		Attachments: []control.Attachment{}, Warnings: v.Warnings}
	if view.Key = keyOf(v); v.Key != nil {
		view.Warnings = append(view.Warnings, keyWarning(v)...)
	}
	if v.Source != nil {
		view.Source = &control.DiskSource{Kind: v.Source.Kind, ID: v.Source.ID.String(), Name: v.Source.Name}
	}
	for _, l := range v.Layers {
		view.Layers = append(view.Layers, control.DiskLayer{ID: l.ID, Segments: append([]string{}, l.Segments...)})
	}
	if a := v.Attachment; a != nil {
		view.Attachments = append(view.Attachments, d.attachmentViews(a)...)
	}
	return view
}

// keyOf is a disk's key, null where it has none.
func keyOf(v volume.Disk) *control.DiskKey { return underKey(v.Key) }

// underKey is the key that something is under, null where that is plain.
func underKey(k *keystore.Info) *control.DiskKey {
	if k == nil {
		return nil
	}
	return &control.DiskKey{ID: k.ID, Alias: k.Alias, State: stateWord(*k)}
}

// keyWarning says what the state of a disk's key means for it, and what undoes that.
func keyWarning(v volume.Disk) []string {
	r := refusal.From(v.Key.May(keystore.Use))
	if r == nil {
		return nil
	}
	then := "the disk can't be attached"
	if v.Attachment != nil {
		then = "the disk goes on until it is detached, and can't be attached again"
	}
	return []string{then + ": " + r.Message + "; " + r.Hint}
}

// stateWord is a key's state; a key that is not there any more, or whose record is damaged, has none.
func stateWord(k keystore.Info) string {
	if k.Unreadable {
		return "Damaged"
	}
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
	if in.FromBackup != "" {
		return d.diskRestore(c, in)
	}
	spec, err := d.specOf(c, in)
	if err != nil {
		return nil, err
	}
	if err := roomForDisk(); err != nil { // also to take back half a disk descriptors are needed
		return nil, err
	}
	v, err := d.volumes.Create(c.ctx, c.request, spec)
	if err == nil && spec.From != nil {
		d.fillSoon(v.Project, v.ID, v.Name)
	}
	return d.diskView(v), err
}

// specOf is what a new disk is to be. What the caller left open its source decides, and without one the project.
func (d *Daemon) specOf(c *call, in control.DiskCreate) (spec volume.Spec, err error) {
	spec = volume.Spec{Project: c.project, Name: in.Name, Size: in.Size, SectorSize: in.SectorSize, Key: in.Key, HideHoles: in.HideHoles, Shared: in.Shared}
	if spec.From, err = d.sourceOf(c, in); err != nil || spec.From != nil {
		return spec, err
	}
	if spec.Encrypted, spec.Key, err = d.choice(c, in); err != nil {
		return spec, err
	}
	if spec.Encrypted {
		spec.Key = cmp.Or(c.onlyKey, spec.Key)
	}
	spec.SectorSize = cmp.Or(spec.SectorSize, defaultSector)
	return spec, nil
}

func (d *Daemon) diskList(c *call) (any, error) {
	sees, err := d.sees(c, access.DiskList, access.Decrypt)
	if err != nil {
		return nil, err
	}
	brief := c.flag(control.QueryBrief)
	return control.Stream(func(next func(any) error) error {
		return d.volumes.List(c.ctx, c.project, !brief, func(v volume.Disk) error {
			key := ""
			if v.Key != nil {
				key = v.Key.ID
			}
			if yes, err := sees(key); err != nil || !yes {
				return err
			}
			if brief {
				return next(control.DiskLine{ID: v.ID, Name: v.Name, Size: v.Size, Encrypted: v.Encrypted, Key: keyOf(v), Status: string(v.Status), Created: v.Created})
			}
			return next(d.diskView(v))
		})
	}), nil
}

func (d *Daemon) diskShow(c *call) (any, error) {
	v, err := d.volumes.Get(c.ctx, c.project, c.disk())
	if err != nil {
		return nil, err
	}
	return d.diskShown(c, v), nil
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
func nameOf(v volume.Disk) string { return "disk " + v.Name + " " + sizeAndKind(v.Size, v.Encrypted) }

func sizeAndKind(size int64, encrypted bool) string {
	kind := "plain"
	if encrypted {
		kind = "encrypted"
	}
	return fmt.Sprintf("(%s, %s)", units.CustomSize("%.4g %s", float64(size), 1024, []string{"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"}), kind)
}

func (d *Daemon) diskDelete(c *call) (any, error) {
	v, err := d.volumes.Get(c.ctx, c.project, c.disk())
	if err != nil {
		return nil, err
	}
	if err := d.held(c, volume.HolderKind, v.ID); err != nil {
		return nil, err
	}
	if !c.yes() {
		with, err := d.withSnapshots(c, v)
		if err != nil {
			return nil, err
		}
		return nil, refusal.New(refusal.Confirm, "repeat it with --yes to do it", "%s will be deleted%s, and its data can't be restored", nameOf(v), with)
	}
	err = d.volumes.Delete(c.ctx, c.request, c.project, c.disk())
	d.tidySoon()
	return nil, err
}
