package daemon

import (
	"cmp"
	"context"
	"errors"
	"io"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// imageView is an image as the API shows it.
func imageView(p volume.Point) control.Image {
	view := control.Image{ID: p.ID, Name: p.Name, Project: p.Project, Size: p.Size, SectorSize: p.SectorSize, Encrypted: p.Encrypted,
		Key: underKey(p.Key), Status: string(p.Status), Created: p.Created, Warnings: p.Warnings}
	switch {
	case p.Disk != "":
		view.Source = &control.DiskSource{Kind: volume.HolderKind, ID: p.Disk, Name: p.DiskName}
	case p.Source != nil && p.Source.Kind == volume.FileKind:
		view.Source = &control.DiskSource{Kind: volume.FileKind}
	case p.Source != nil:
		view.Source = &control.DiskSource{Kind: p.Source.Kind, ID: p.Source.ID.String(), Name: p.Source.Name}
	}
	if p.Key != nil {
		if r := refusal.From(p.Key.May(keystore.Use)); r != nil {
			view.Warnings = append(view.Warnings, "nothing can be made of the image: "+r.Message+"; "+r.Hint)
		}
	}
	return view
}

// imageCreate makes an image of a disk, or of the system disk of a server (rule A32).
func (d *Daemon) imageCreate(c *call) (any, error) {
	var in control.ImageCreate
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	if (in.Disk == "") == (in.Server == "") {
		return nil, refusal.New(refusal.Usage, "name one of them with --from-disk or --from-server", "an image is made of a disk or of a server's system disk")
	}
	if in.Server != "" {
		disk, err := d.systemDisk(c, in.Server)
		if err != nil {
			return nil, err
		}
		in.Disk = disk
	}
	of := volume.ImageOf{Project: c.project, Disk: in.Disk, Name: in.Name, Encrypted: in.Encrypted}
	if in.Key != "" {
		key, err := d.keys.Key(c.ctx, c.project, in.Key)
		if err != nil {
			return nil, err
		}
		of.Key = key.ID
	}
	if err := roomForDisk(); err != nil {
		return nil, err
	}
	p, err := d.volumes.CreateImage(c.ctx, c.request, of)
	return imageView(p), err
}

// imageUpload makes an image of what comes with the call. What the caller left open the project decides, as for disks.
func (d *Daemon) imageUpload(c *call) (any, error) {
	in, err := control.ParseImageUpload(c.http.URL.Query())
	if err != nil {
		return nil, err
	}
	encrypted, key, err := d.choice(c, control.DiskCreate{Encrypted: in.Encrypted, Key: in.Key})
	if err != nil {
		return nil, err
	}
	if err := roomForDisk(); err != nil {
		return nil, err
	}
	spec := volume.ImageSpec{Project: c.project, Name: in.Name, Size: in.Size, SectorSize: cmp.Or(in.SectorSize, defaultSector), Encrypted: encrypted, Key: key}
	p, err := d.volumes.FillImage(c.ctx, c.request, spec, func(w *volume.ImageWriter) (int64, error) {
		c.begun() // the image is in the catalog, and keeps its project
		return d.takeImage(c, in.Size, w)
	})
	return imageView(p), err
}

// takeImage writes what is uploaded. size is 0 where its end tells.
func (d *Daemon) takeImage(c *call, size int64, w *volume.ImageWriter) (int64, error) {
	limit := size
	if size == 0 {
		limit = volume.MaxSize
	}
	frames, done := d.frames(c, limit)
	defer done()
	for {
		p, off, err := frames.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			_, err = w.WriteAt(p, off)
		}
		if err != nil {
			return 0, err
		}
	}
	if size != 0 && frames.Size() != size {
		return 0, refusal.New(refusal.Usage, "send all of it", "%d bytes were to come, and %d did", size, frames.Size())
	}
	return frames.Size(), nil
}

// imageCopy makes another image of an image, as a job: the explicit way to another key, or to none (rule D5). The first one, which can't go
// meanwhile, keeps the project.
func (d *Daemon) imageCopy(c *call) (any, error) {
	var in control.ImageCopy
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	from, err := d.volumes.Point(c.ctx, volume.ImageKind, c.project, c.image())
	if err != nil {
		return nil, err
	}
	spec, err := d.copySpec(c, in, from)
	if err != nil {
		return nil, err
	}
	if err := roomForDisk(); err != nil {
		return nil, err
	}
	return d.startJob(c, control.Job{Verb: "image copy", Resource: from.Name + " " + in.Name, Unit: "bytes"},
		func(ctx context.Context, progress func(done, total int64)) (any, error) {
			p, err := d.volumes.CopyImage(ctx, c.request, c.project, from.ID, spec, d.workOf(c, "image copy", c.resource(), progress, nil))
			return imageView(p), err
		})
}

// copySpec is what a copy is to be, and has the record say so: under which key, or that it is plain.
func (d *Daemon) copySpec(c *call, in control.ImageCopy, from volume.Point) (volume.ImageSpec, error) {
	spec := volume.ImageSpec{Project: c.project, Name: in.Name}
	var err error
	switch {
	case in.Encrypted != nil && !*in.Encrypted && in.Key != "":
		return spec, refusal.New(refusal.Usage, "leave out --plain, or leave out --key", "a plain image has no key")
	case in.Encrypted != nil || in.Key != "":
		spec.Encrypted, spec.Key, err = d.choice(c, control.DiskCreate{Encrypted: in.Encrypted, Key: in.Key})
	case from.Key != nil:
		spec.Encrypted, spec.Key, err = true, from.Key.ID, from.Key.May(keystore.Use)
	}
	if err != nil {
		return spec, err
	}
	if !spec.Encrypted {
		if from.Key != nil {
			c.keyID = from.Key.ID
		}
		c.about += " as plain"
		return spec, nil
	}
	key, err := d.keys.May(c.ctx, c.project, spec.Key, keystore.Use)
	if err == nil {
		c.keyID, spec.Key = key.ID, key.ID
		c.about += " under " + key.Alias
	}
	return spec, err
}

func (d *Daemon) imageList(c *call) (any, error) {
	sees, err := d.sees(c, access.ImageList, access.Decrypt)
	if err != nil {
		return nil, err
	}
	return control.Stream(func(next func(any) error) error {
		return d.volumes.Points(c.ctx, volume.ImageKind, c.project, "", func(p volume.Point) error {
			key := ""
			if p.Key != nil {
				key = p.Key.ID
			}
			if yes, err := sees(key); err != nil || !yes {
				return err
			}
			return next(imageView(p))
		})
	}), nil
}

func (d *Daemon) imageShow(c *call) (any, error) {
	p, err := d.volumes.Point(c.ctx, volume.ImageKind, c.project, c.image())
	return imageView(p), err
}

func (d *Daemon) imageDelete(c *call) (any, error) {
	p, err := d.volumes.Point(c.ctx, volume.ImageKind, c.project, c.image())
	if err != nil {
		return nil, err
	}
	if err := d.held(c, volume.ImageKind, p.ID); err != nil {
		return nil, err
	}
	if !c.yes() {
		return nil, refusal.New(refusal.Confirm, "repeat it with --yes to do it; disks that were made of it stay as they are",
			"image %s %s will be deleted", p.Name, sizeAndKind(p.Size, p.Encrypted))
	}
	_, err = d.volumes.DeleteImage(c.ctx, c.request, c.project, p.ID)
	d.tidySoon() // what it stood on may be needed by nobody else
	return nil, err
}

// image is the image that the path names.
func (c *call) image() string { return cmp.Or(c.onlyImage, c.http.PathValue("image")) }
