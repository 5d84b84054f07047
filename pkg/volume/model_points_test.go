package volume_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// mostSnapshots is how many snapshots a disk may have (rule B12).
const mostSnapshots = 7

// modelPoint is what the model knows of a snapshot or an image.
type modelPoint struct {
	kind, name string
	data       []byte
	of         *modelDisk
	spec       volume.Spec // what a disk made from it is
}

func (w *world) newPoint(kind string, d *modelDisk) *modelPoint {
	w.calls++
	return &modelPoint{kind, fmt.Sprint(kind, w.calls), bytes.Clone(d.now), d, d.spec}
}

// point draws a snapshot, of a disk where one is named; nil where there is none.
func (w *world) point(of *modelDisk) *modelPoint {
	var list []*modelPoint
	for _, p := range w.points {
		if of == nil || p.of == of {
			list = append(list, p)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return pick(w, "point", list)
}

func (w *world) anyDisk() *modelDisk {
	if len(w.disks) == 0 {
		return nil
	}
	return pick(w, "disk", w.disks)
}

// keepsFilling tells that a re-key or a full copy of a disk is not done, so that it can't be frozen or rolled back.
func (w *world) keepsFilling(d *modelDisk) bool {
	why, err := w.s.FillOf(background, "default", d.spec.Name)
	w.sure(err)
	return why != "" && why != "merge"
}

// snapshot keeps what a disk holds, attached or not.
func (w *world) snapshot() {
	d := w.anyDisk()
	if d == nil {
		return
	}
	p := w.newPoint("snapshot", d)
	full := len(slices.DeleteFunc(slices.Clone(w.points), func(o *modelPoint) bool { return o.of != d || o.kind != p.kind })) == mostSnapshots || w.keepsFilling(d)
	w.rt.Logf("snapshot %s of %s, attached %v", p.name, d.spec.Name, d.a != nil)
	_, err := w.s.CreateSnapshot(background, w.call(), "default", d.spec.Name, p.name)
	if full {
		w.refused("snapshot", err, refusal.Busy)
		return
	}
	if w.pointed(p, err) {
		d.settleAll() // what is frozen is durable
	}
}

// pointed has the model know a point that was made; after a cut, if it was.
func (w *world) pointed(p *modelPoint, err error) bool {
	if w.went(p.kind, err) {
		w.points = append(w.points, p)
		return true
	}
	w.doubt = func() {
		if w.pointExists(p) {
			w.points = append(w.points, p)
		}
	}
	return false
}

// image keeps what a disk holds, beyond the disk.
func (w *world) image() {
	d := w.anyDisk()
	if d == nil || len(w.points) > 12 || w.keepsFilling(d) {
		return
	}
	p := w.newPoint("image", d)
	w.rt.Logf("%s of %s", p.name, d.spec.Name)
	_, err := w.s.CreateImage(background, w.call(), volume.ImageOf{Project: "default", Disk: d.spec.Name, Name: p.name})
	if w.pointed(p, err) {
		d.settleAll()
	}
}

// clone makes a disk that stands on a point, and may be larger; some copy all of it later.
func (w *world) clone() {
	p := w.point(nil)
	if p == nil || len(w.disks) >= maxDisks {
		return
	}
	w.calls++
	s := volume.Spec{Project: "default", Name: fmt.Sprint("disk", w.calls), From: &volume.From{Kind: p.kind, Ref: p.name, Full: w.oneIn(3, "full")}}
	if w.oneIn(3, "larger") {
		s.Size = int64(len(p.data) + (1+w.below(9, "sectors more"))*p.spec.SectorSize)
	}
	w.rt.Logf("%s of %s, full %v, %d bytes", s.Name, p.name, s.From.Full, s.Size)
	_, err := w.s.Create(background, w.call(), s)
	s.SectorSize, s.Encrypted, s.Size = p.spec.SectorSize, p.spec.Encrypted, max(s.Size, int64(len(p.data)))
	w.made("clone", &modelDisk{content: newContent(p.data, s.Size), spec: s}, err)
}

// pointExists tells whether a start after a cut knows a point. It has to be whole then.
func (w *world) pointExists(p *modelPoint) bool {
	shown, err := w.s.Point(background, p.kind, "default", p.name)
	if refusal.CodeOf(err) == refusal.NotFound {
		return false
	}
	w.sure(err)
	if shown.Status != volume.Available || shown.Size != int64(len(p.data)) {
		w.rt.Fatalf("%s %s is %s with %d bytes after a start", p.kind, p.name, shown.Status, shown.Size)
	}
	return true
}

// snapshotUnderWrites makes a snapshot while blocks are written by two, each one after the other: it has of each all up to some, and no other.
func (w *world) snapshotUnderWrites() {
	d := w.disk(true)
	if d == nil || w.armed || len(d.now) < 8*4096 || w.keepsFilling(d) {
		return
	}
	p, blocks := w.newPoint("snapshot", d), len(d.now)/4096
	w.rt.Logf("%s of %s while its %d blocks are written", p.name, d.spec.Name, blocks)
	mark := byte(w.calls)
	data := func(i int) []byte { return bytes.Repeat([]byte{mark, byte(i)}, 2048) }
	var err error
	w.slowly(func() {
		begun, done := make(chan struct{}), make(chan error)
		for first := range 2 {
			go func() {
				var err error
				for i := first; i < blocks && err == nil; i += 2 {
					if i == blocks/4 {
						close(begun)
					}
					_, err = d.a.Device.WriteAt(data(i), int64(i)*4096)
				}
				done <- err
			}()
		}
		<-begun
		_, err = w.s.CreateSnapshot(background, w.call(), "default", d.spec.Name, p.name)
		w.sure(errors.Join(<-done, <-done))
	})
	for i := range blocks {
		d.change(data(i), int64(i)*4096)
	}
	if refusal.CodeOf(err) == refusal.Busy { // there are seven already
		return
	}
	w.went("snapshot under writes", err)
	w.points = append(w.points, p)
	w.heldSome(p, blocks, data)
}

// heldSome sees that a snapshot has of the even and of the odd blocks all up to some, and has the model know which.
func (w *world) heldSome(p *modelPoint, blocks int, data func(i int) []byte) {
	got := w.readPoint(p)
	for first := range 2 {
		for i := first; i < blocks && bytes.Equal(got[i*4096:][:4096], data(i)); i += 2 {
			copy(p.data[i*4096:], data(i))
		}
	}
	if what := differs(got, p.data); what != "" {
		w.rt.Fatalf("%s has not all that was written up to some moment, and nothing later: %s", p.name, what)
	}
}

// rollback has a disk hold what one of its snapshots holds, in its own size.
func (w *world) rollback() {
	d := w.anyDisk()
	if d == nil {
		return
	}
	p := w.point(d)
	if p == nil || p.kind != "snapshot" {
		return
	}
	w.rt.Logf("roll %s back to %s", d.spec.Name, p.name)
	refused := d.a != nil || w.keepsFilling(d)
	_, err := w.s.Rollback(background, w.call(), "default", d.spec.Name, p.name)
	if refused {
		w.refused("rollback", err, refusal.Busy)
		return
	}
	then := newContent(p.data, int64(len(d.now))).now
	if w.went("rollback", err) {
		d.take(then)
		return
	}
	d.either = then
}

// deletePoint ends a snapshot or an image; what others need of it stays.
func (w *world) deletePoint() {
	if p := w.point(nil); p != nil {
		w.endPoint(p)
	}
}

func (w *world) endPoint(p *modelPoint) {
	w.rt.Logf("delete %s %s", p.kind, p.name)
	gone := func() { w.points = slices.DeleteFunc(w.points, func(o *modelPoint) bool { return o == p }) }
	request := w.call()
	err := w.beside(func() error {
		if p.kind == "snapshot" {
			_, err := w.s.DeleteSnapshot(background, request, "default", p.name, volume.Work{})
			return err
		}
		_, err := w.s.DeleteImage(background, request, "default", p.name)
		return err
	})
	if w.went("delete "+p.kind, err) {
		gone()
		return
	}
	w.doubt = func() {
		if !w.pointExists(p) {
			gone()
		}
	}
}

// rekey gives a disk another data key. What a cut leaves of it is gone on with by the next.
func (w *world) rekey() {
	d := w.anyDisk()
	if d == nil || !d.spec.Encrypted {
		return
	}
	w.rt.Logf("rekey %s", d.spec.Name)
	request := w.call()
	w.went("rekey", w.beside(func() error {
		_, err := w.s.Rekey(background, request, "default", d.spec.Name, volume.Work{})
		return err
	}))
}

// merge gives back all layers that nobody needs for themselves, and ends what a cut has left.
func (w *world) merge() {
	list, err := w.s.Remnants(background)
	w.sure(err)
	for _, id := range list {
		w.rt.Logf("merge %s", id)
		if !w.went("merge", w.beside(func() error { return w.s.Merge(background, id, true, volume.Work{}) })) {
			return
		}
	}
	for _, d := range w.disks {
		if !w.went("fill", w.s.RunFill(background, "default", d.spec.Name, volume.Work{})) {
			return
		}
	}
}

// beside does work while attached disks are written; not where a cut is to fall at the same operation each time that this is played.
func (w *world) beside(work func() error) (err error) {
	if w.armed || w.disk(true) == nil || w.oneIn(2, "alone") {
		return work()
	}
	w.slowly(func() {
		done := make(chan error)
		go func() { done <- work() }()
		defer func() { err = <-done }() // also where a write fails the test
		for range 8 + w.below(60, "writes beside") {
			pick(w, "kind of write", []func(*world){(*world).write, (*world).write, (*world).trim, (*world).zero, (*world).flush})(w)
		}
	})
	return err
}

// readPoint reads all of a point.
func (w *world) readPoint(p *modelPoint) []byte {
	got, err := w.s.ReadPoint(background, p.kind, "default", p.name)
	w.sure(err)
	return got
}

// lookAtPoint compares a point. It never changes.
func (w *world) lookAtPoint() {
	if p := w.point(nil); p != nil && !w.armed {
		w.comparePoint(p)
	}
}

func (w *world) comparePoint(p *modelPoint) {
	if what := differs(w.readPoint(p), p.data); what != "" {
		w.rt.Fatalf("%s %s of %s: %s", p.kind, p.name, p.of.spec.Name, what)
	}
}
