package server

import (
	"errors"
	"fmt"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// Held tells what keeps a disk ("disk") or an image ("image") from being deleted, for volume.Config.Held.
func Held(r catalog.Reader, kind string, id uuid.UUID) error {
	if kind == volume.ImageKind {
		return heldImage(r, id, uuid.Nil)
	}
	of, err := serverOf(r, id)
	if err != nil {
		return servers.explain("of the disk", err)
	}
	if of == nil {
		return nil
	}
	return refusal.New(refusal.Busy, "take it from the server with `nbdcrypt server detach "+of.Name+" DISK`, or delete both with `nbdcrypt server delete "+of.Name+"`",
		"the disk is the %s disk of server %s", of.role(id), of.Name)
}

// serverOf is the server that has a disk, nil for none. An index without a server is nobody's.
func serverOf(r catalog.Reader, disk uuid.UUID) (*serverRecord, error) {
	b, err := r.Get(diskKey(disk))
	if errors.Is(err, catalog.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	id, err := uuid.Parse(string(b))
	if err != nil {
		return nil, errors.Join(catalog.ErrDamaged, err)
	}
	rec, err := servers.get(r, id)
	if errors.Is(err, catalog.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &rec, nil
}

// role is what a disk is to the server.
func (r serverRecord) role(disk uuid.UUID) string {
	for _, d := range r.Disks {
		if d.ID == disk {
			return d.Role
		}
	}
	return ""
}

// heldImage refuses to let an image go that another configuration than this needs.
func heldImage(r catalog.Reader, image, but uuid.UUID) error {
	name, more, err := behind(r, configs, imageKey(image), but)
	if err != nil || name == "" {
		return err
	}
	return refusal.New(refusal.Busy, "delete that first with `nbdcrypt scaling config delete "+name+"`", "the image is that of scaling configuration %s%s", name, more)
}

// behind is the name of the first of those whose ids stand behind a prefix, but for one, and how many more there are; nothing where there is none.
func behind[T recorded](r catalog.Reader, k kind[T], prefix string, but uuid.UUID) (name, more string, err error) {
	keys, err := r.Names(prefix, "", 2)
	if err != nil {
		return "", "", err
	}
	n, err := r.Count(prefix)
	for _, key := range keys {
		id := key[len(prefix):]
		if id == but.String() {
			n--
		} else if name == "" {
			name = nameOf(r, k, id)
		}
	}
	if n > 1 {
		more = fmt.Sprintf(" and of %d more", n-1)
	}
	return name, more, err
}

// nameOf is what something is called, or its id where that can't be read.
func nameOf[T recorded](r catalog.Reader, k kind[T], id string) string {
	if parsed, err := uuid.Parse(id); err == nil {
		if v, err := k.get(r, parsed); err == nil {
			return v.common().Name
		}
	}
	return id
}
