package volume_test

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"pgregory.net/rapid"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

const maxDisks = 5

// create makes an empty disk.
func (w *world) create() {
	if len(w.disks) >= maxDisks {
		return
	}
	w.calls++
	s := volume.Spec{Project: "default", Name: fmt.Sprint("disk", w.calls), SectorSize: pick(w, "sector size", []int{512, 4096}),
		Encrypted: !w.oneIn(4, "plain")}
	s.Size = int64(1+w.below(20, "blocks")) * 4096
	if s.SectorSize == 512 && rapid.Bool().Draw(w.rt, "an end within a block") {
		s.Size -= int64(1+w.below(7, "sectors less")) * 512
	}
	w.rt.Logf("create %s of %d bytes, sectors of %d, encrypted %v", s.Name, s.Size, s.SectorSize, s.Encrypted)
	_, err := w.s.Create(background, w.call(), s)
	w.made("create", &modelDisk{content: newContent(nil, s.Size), spec: s}, err)
}

// made has the model know a disk that was made; after a cut, if it was.
func (w *world) made(verb string, d *modelDisk, err error) {
	if w.went(verb, err) {
		w.disks = append(w.disks, d)
		return
	}
	w.doubt = func() {
		if w.exists(d) {
			w.disks = append(w.disks, d)
		}
	}
}

// exists tells whether a start after a cut knows a disk. It has to be whole then.
func (w *world) exists(d *modelDisk) bool {
	shown, err := w.s.Get(background, "default", d.spec.Name)
	if refusal.CodeOf(err) == refusal.NotFound {
		return false
	}
	w.sure(err)
	if shown.Status != volume.Available {
		w.rt.Fatalf("disk %s is %s after a start", d.spec.Name, shown.Status)
	}
	return true
}

// disk draws a disk, nil where there is none.
func (w *world) disk(attached bool) *modelDisk {
	list := slices.DeleteFunc(slices.Clone(w.disks), func(d *modelDisk) bool { return (d.a != nil) != attached })
	if len(list) == 0 {
		return nil
	}
	return pick(w, "disk", list)
}

func (w *world) attach() {
	if d := w.disk(false); d != nil {
		w.attachDisk(d)
	}
}

func (w *world) attachDisk(d *modelDisk) bool {
	w.rt.Logf("attach %s", d.spec.Name)
	a, err := w.s.Attach(background, w.call(), spec(d.spec.Name))
	if w.went("attach", err) {
		d.a = a
	}
	return err == nil
}

func (w *world) detach() {
	if d := w.disk(true); d != nil {
		w.detachDisk(d)
	}
}

func (w *world) detachDisk(d *modelDisk) bool {
	w.rt.Logf("detach %s", d.spec.Name)
	warnings, err := w.s.Detach(background, w.call(), leave(d.spec.Name))
	if !w.went("detach", err) {
		return false
	}
	d.a = nil
	if len(warnings) == 0 {
		d.settleAll()
	} else if !w.power.Off() {
		w.rt.Fatalf("a detach warns: %q", warnings)
	}
	return true
}

// delete ends a disk. Where the power goes it may have begun, and a start finishes it.
func (w *world) delete() {
	if d := w.disk(false); d != nil {
		w.deleteDisk(d)
	}
}

func (w *world) deleteDisk(d *modelDisk) bool {
	w.rt.Logf("delete %s", d.spec.Name)
	gone := func() { // with its snapshots (rule B11)
		w.disks = slices.DeleteFunc(w.disks, func(o *modelDisk) bool { return o == d })
		w.points = slices.DeleteFunc(w.points, func(p *modelPoint) bool { return p.of == d && p.kind == "snapshot" })
	}
	if w.went("delete", w.s.Delete(background, w.call(), "default", d.spec.Name)) {
		gone()
		return true
	}
	w.doubt = func() {
		if !w.exists(d) {
			gone()
		}
	}
	return false
}

func (w *world) extend() {
	if len(w.disks) == 0 {
		return
	}
	d := pick(w, "disk", w.disks)
	size := int64(len(d.now)) + int64(1+w.below(8, "sectors more"))*int64(d.spec.SectorSize)
	w.rt.Logf("extend %s to %d bytes", d.spec.Name, size)
	_, err := w.s.Extend(background, w.call(), "default", d.spec.Name, size)
	if w.went("extend", err) {
		d.grow(size)
		return
	}
	w.doubt = func() {
		shown, err := w.s.Get(background, "default", d.spec.Name)
		w.sure(err)
		if shown.Size == size {
			d.grow(size)
		} else if shown.Size != int64(len(d.now)) {
			w.rt.Fatalf("disk %s has %d bytes after a cut", d.spec.Name, shown.Size)
		}
	}
}

// where draws a range of a disk: most of whole blocks, some of whole sectors, others of any bytes.
func (w *world) where(d *modelDisk) (off int64, n int) {
	unit := pick(w, "unit", []int{4096, 4096, 512, 1})
	if unit > len(d.now) {
		unit = 512
	}
	units := len(d.now) / unit
	first := w.below(units, "from")
	n = 1 + w.below(min(units-first, 1+5*4096/unit), "length")
	return int64(first * unit), n * unit
}

func (w *world) write() {
	d := w.disk(true)
	if d == nil {
		return
	}
	off, n := w.where(d)
	p := make([]byte, n)
	w.calls++
	rng := rand.NewChaCha8([32]byte{byte(w.calls), byte(w.calls >> 8)})
	_, _ = rng.Read(p)
	fua := w.oneIn(5, "FUA")
	w.rt.Logf("write %d bytes at %d to %s, FUA %v", n, off, d.spec.Name, fua)
	d.change(p, off)
	if !fua {
		_, err := d.a.Device.WriteAt(p, off)
		w.went("write", err)
		return
	}
	if _, err := d.a.Device.WriteAtFUA(p, off); w.went("FUA", err) {
		d.settle(off, int64(n))
	}
}

func (w *world) trim() {
	if d := w.disk(true); d != nil {
		off, n := w.where(d)
		w.rt.Logf("trim %d bytes at %d of %s", n, off, d.spec.Name)
		d.change(make([]byte, n), off)
		w.went("trim", d.a.Device.TrimAt(off, int64(n)))
	}
}

func (w *world) zero() {
	if d := w.disk(true); d != nil {
		off, n := w.where(d)
		reserve := rapid.Bool().Draw(w.rt, "the space stays")
		w.rt.Logf("zero %d bytes at %d of %s, the space stays: %v", n, off, d.spec.Name, reserve)
		d.change(make([]byte, n), off)
		w.went("zero", d.a.Device.ZeroAt(off, int64(n), reserve))
	}
}

func (w *world) flush() {
	if d := w.disk(true); d != nil {
		w.rt.Logf("flush %s", d.spec.Name)
		if w.went("flush", d.a.Device.Sync()) {
			d.settleAll()
		}
	}
}
