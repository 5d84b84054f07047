package volume_test

import (
	"pgregory.net/rapid"

	"nbdcrypt/pkg/catalog"
)

// compare reads what is attached, unless the power is about to go: a verb is what that should fall on.
func (w *world) compare(rt *rapid.T) {
	w.rt = rt
	for _, d := range w.disks {
		if d.a != nil && !w.armed {
			w.compareDisk(d)
		}
	}
}

func (w *world) compareDisk(d *modelDisk) {
	got := make([]byte, len(d.now))
	if _, err := d.a.Device.ReadAt(got, 0); !w.went("read", err) {
		return
	}
	if what := differs(got, d.now); what != "" {
		w.rt.Fatalf("disk %s: %s", d.spec.Name, what)
	}
}

// readDisk reads a disk that is not attached.
func (w *world) readDisk(d *modelDisk) []byte {
	if !w.attachDisk(d) {
		w.rt.Fatalf("disk %s can't be read", d.spec.Name)
	}
	got := make([]byte, len(d.now))
	if size, _ := d.a.Device.Size(); size != int64(len(got)) {
		w.rt.Fatalf("disk %s has %d bytes, not %d", d.spec.Name, size, len(got))
	}
	_, err := d.a.Device.ReadAt(got, 0)
	w.sure(err)
	_, err = w.s.Detach(background, w.call(), leave(d.spec.Name))
	w.sure(err)
	d.a = nil
	return got
}

// finish compares all, deletes all, and looks for what is left.
func (w *world) finish() {
	w.power.CutAfter(-1)
	w.armed = false
	w.restart()
	for _, d := range w.disks {
		if what := differs(w.readDisk(d), d.now); what != "" {
			w.rt.Fatalf("disk %s in the end: %s", d.spec.Name, what)
		}
	}
	for _, p := range w.points {
		w.comparePoint(p)
	}
	for len(w.disks)+len(w.points) > 0 {
		if n := w.below(len(w.disks)+len(w.points), "which goes next"); n < len(w.disks) {
			w.deleteDisk(w.disks[n])
		} else {
			w.endPoint(w.points[n-len(w.disks)])
		}
	}
	w.restart()
	w.nothingLeft()
}

// nothingLeft looks for records and volumes that nobody needs any more.
func (w *world) nothingLeft() {
	volumes, err := w.power.List(background)
	w.sure(err)
	if len(volumes) > 0 {
		w.rt.Errorf("volumes are left: %q", volumes)
	}
	w.sure(w.catalog.View(background, func(r catalog.Reader) error {
		for _, prefix := range []string{"disk", "layer/", "attachment/", "dek/", "uses/", "snapshot", "image", "backup",
			"point-of/", "ref/", "doomed/", "making/", "merge/", "trim-deks/"} {
			names, err := r.Names(prefix, "", 10)
			if err != nil {
				return err
			}
			if len(names) > 0 {
				w.rt.Errorf("records are left: %q", names)
			}
		}
		return nil
	}))
}
