package recorder

import (
	"fmt"
	"math/rand/v2"
	"os"
)

// Keep is what a power cut keeps of the writes that no flush covers.
type Keep int

const (
	Nothing    Keep = iota // as if each had only reached the disk's cache
	Everything             // as if only the machine had died
	Some                   // some of the writes, each whole
	Torn                   // of each write some sectors
)

func (k Keep) String() string { return [...]string{"nothing", "everything", "some", "torn"}[k] }

// Left tells what an image was made of, in bytes; zeros do not count.
type Left struct {
	Durable  int64 // covered by a flush
	Volatile int64 // by none
	Kept     int64 // of the latter
}

// Image writes what a power cut at a moment leaves into a file, which is made empty first. Writes that overlap go in the
// order of the log, and as any of them may be missing, each sector may hold any version since the last durable one. That is
// what reordering comes to.
func (d *Disk) Image(f *os.File, cut Point, keep Keep, seed uint64) (Left, error) {
	return d.image(f, cut, cut, keep, seed)
}

// Lie is Nothing that is kept by a disk whose flushes after a moment were answered and did nothing: what has been acknowledged since is
// lost, and whoever does not see that sees nothing.
func (d *Disk) Lie(f *os.File, honest, cut Point) (Left, error) {
	return d.image(f, honest, cut, Nothing, 0)
}

func (d *Disk) image(f *os.File, honest, cut Point, keep Keep, seed uint64) (Left, error) {
	if err := f.Truncate(0); err != nil {
		return Left{}, err
	}
	if err := f.Truncate(d.size); err != nil {
		return Left{}, err
	}
	writes, covered := d.until(honest, cut)
	i := &image{disk: d, to: f, keep: keep, rng: rand.New(rand.NewPCG(seed, uint64(cut)))}
	i.share = []float64{0.1, 0.5, 0.9}[i.rng.IntN(3)]
	for _, w := range writes {
		if err := i.add(w, w.lasts(honest, covered)); err != nil {
			return Left{}, fmt.Errorf("recorder: image: %w", err)
		}
	}
	return i.left, nil
}

// until returns the writes that had begun by a cut, and when the last honest flush began.
func (d *Disk) until(honest, cut Point) (begun []write, covered Point) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range d.writes {
		if w.begun <= cut {
			begun = append(begun, w)
		}
	}
	return begun, d.covered(honest)
}

// Riskiest is the moment, from one to another, at which most bytes were written that no flush covered.
func (d *Disk) Riskiest(from, to Point) Point {
	d.mu.Lock()
	defer d.mu.Unlock()
	best, most := from, int64(-1)
	for _, f := range d.flushes {
		if f.begun < from || f.begun > to {
			continue
		}
		if n := d.volatile(f.begun); n > most {
			best, most = f.begun, n
		}
	}
	return best
}

// volatile is how many bytes would be at risk at a moment.
func (d *Disk) volatile(cut Point) (n int64) {
	covered := d.covered(cut)
	for _, w := range d.writes {
		if w.begun <= cut && w.at >= 0 && !w.lasts(cut, covered) {
			n += w.n
		}
	}
	return n
}

// lasts tells whether a write must be there after a cut, where the last flush began when covered says.
func (w write) lasts(cut, covered Point) bool { return w.ended < covered || w.fua && w.ended <= cut }

// covered is when the last flush began that had ended by then.
func (d *Disk) covered(cut Point) (begun Point) {
	for _, f := range d.flushes {
		if f.ended <= cut {
			begun = max(begun, f.begun)
		}
	}
	return begun
}

// image is one that is being built.
type image struct {
	disk  *Disk
	to    *os.File
	keep  Keep
	rng   *rand.Rand
	share float64 // of what is kept where only some is
	left  Left
	buf   []byte
}

func (i *image) add(w write, durable bool) error {
	data, err := i.read(w)
	if err != nil {
		return err
	}
	if durable {
		i.left.Durable += int64(len(data))
		return put(i.to, w, data)
	}
	i.left.Volatile += int64(len(data))
	switch {
	case i.keep == Torn && data != nil:
		return i.tear(w, data)
	case i.keep == Everything, i.keep != Nothing && i.rng.Float64() < i.share:
		i.left.Kept += int64(len(data))
		return put(i.to, w, data)
	}
	return nil
}

// tear keeps some sectors of a write, each whole.
func (i *image) tear(w write, data []byte) error {
	for from, to := w.off, int64(0); from < w.off+w.n; from = to {
		to = min(w.off+w.n, (from/Sector+1)*Sector)
		if i.rng.Float64() >= i.share {
			continue
		}
		if _, err := i.to.WriteAt(data[from-w.off:to-w.off], from); err != nil {
			return err
		}
		i.left.Kept += to - from
	}
	return nil
}

// read returns the bytes of a write, nil for zeros. They are good until the next call.
func (i *image) read(w write) ([]byte, error) {
	if w.at < 0 {
		return nil, nil
	}
	if int64(cap(i.buf)) < w.n {
		i.buf = make([]byte, w.n)
	}
	data := i.buf[:w.n]
	_, err := i.disk.log.ReadAt(data, w.at)
	return data, err
}
