package cli

import (
	"cmp"
	"errors"
	"io"
	"net/http"
	"slices"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

func (f *fake) imageRoutes(handle func(string, func(*http.Request) (any, error))) {
	handle(control.RouteImageCreate, func(r *http.Request) (any, error) {
		var ask control.ImageCreate
		if err := control.ReadJSON(r, &ask); err != nil {
			return nil, err
		}
		if s, err := f.server(ask.Server); err == nil {
			ask.Disk = s.Disks[slices.IndexFunc(s.Disks, func(d control.ServerDisk) bool { return d.Role == control.SystemDisk })].ID
		}
		d, err := f.disk(ask.Disk)
		if err != nil {
			return nil, err
		}
		return f.newImage(&control.Image{Name: ask.Name, Size: d.Size, Encrypted: d.Encrypted, Key: d.Key, Source: &control.DiskSource{Kind: "disk", ID: d.ID, Name: d.Name}})
	})
	handle(control.RouteImageUpload, f.imageUpload)
	handle(control.RouteImageCopy, func(r *http.Request) (any, error) {
		var ask control.ImageCopy
		if err := control.ReadJSON(r, &ask); err != nil {
			return nil, err
		}
		i, err := f.image(r.PathValue("image"))
		if err != nil {
			return nil, err
		}
		to := &control.Image{Name: ask.Name, Size: i.Size, Encrypted: i.Encrypted, Key: i.Key, Source: &control.DiskSource{Kind: "image", ID: i.ID, Name: i.Name}}
		if ask.Encrypted != nil {
			to.Encrypted, to.Key = *ask.Encrypted, nil
		}
		if ask.Key != "" {
			k, err := f.key(ask.Key)
			if err != nil {
				return nil, err
			}
			to.Key = &control.DiskKey{ID: k.ID, Alias: k.Alias, State: k.State}
		}
		return f.newImage(to)
	})
	handle(control.RouteImageList, func(*http.Request) (any, error) { return control.List(f.images), nil })
	handle(control.RouteImageShow, func(r *http.Request) (any, error) { return f.image(r.PathValue("image")) })
	handle(control.RouteImageDelete, func(r *http.Request) (any, error) {
		i, err := f.image(r.PathValue("image"))
		if err != nil {
			return nil, err
		}
		if r.URL.Query().Get(control.QueryYes) != "true" {
			return nil, refusal.New(refusal.Confirm, "", "image %s will be deleted", i.Name)
		}
		f.images = slices.DeleteFunc(f.images, func(o *control.Image) bool { return o == i })
		return struct{}{}, nil
	})
}

func (f *fake) image(name string) (*control.Image, error) {
	for _, i := range f.images {
		if i.Name == name || i.ID == name {
			return i, nil
		}
	}
	return nil, refusal.New(refusal.NotFound, "`nbdcrypt image list` shows what is there", "no image %s", name)
}

func (f *fake) newImage(i *control.Image) (any, error) {
	if _, err := f.image(i.Name); err == nil {
		return nil, refusal.New(refusal.Busy, "choose another name", "image %s exists already", i.Name)
	}
	i.ID, i.Project, i.SectorSize, i.Status, i.Created = f.id(), "default", cmp.Or(i.SectorSize, 512), "available", moment0()
	f.images = append(f.images, i)
	return i, nil
}

// imageUpload keeps what it was sent, with zeros where nothing was.
func (f *fake) imageUpload(r *http.Request) (any, error) {
	ask, err := control.ParseImageUpload(r.URL.Query())
	if err != nil {
		return nil, err
	}
	frames := control.NewFrameReader(r.Body, 1<<30)
	f.sent = nil
	for {
		p, off, err := frames.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		f.sent = append(append(f.sent, make([]byte, off-int64(len(f.sent)))...), p...)
	}
	f.sent = append(f.sent, make([]byte, frames.Size()-int64(len(f.sent)))...)
	sector := cmp.Or(ask.SectorSize, 512)
	i := &control.Image{Name: ask.Name, Size: (frames.Size() + int64(sector) - 1) / int64(sector) * int64(sector), SectorSize: sector, Source: &control.DiskSource{Kind: "file"}}
	if ask.Encrypted != nil && *ask.Encrypted {
		i.Encrypted, i.Key = true, &control.DiskKey{ID: "k", Alias: "evs/default", State: "Enabled"}
	}
	return f.newImage(i)
}
