package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/pool"
)

// List calls fn with every disk of a project, in the order of their ids, as the catalog had them at one moment. Without layers
// it takes half the time. A disk whose record can't be read is among them with the status Damaged, as far as its name tells of it.
func (s *Service) List(ctx context.Context, project string, layers bool, fn func(Disk) error) error {
	return explainList(s.Catalog.View(ctx, func(r catalog.Reader) error {
		l := &listing{ctx: ctx, s: s, r: r, project: project, layers: layers, keys: map[string]*keystore.Info{}}
		if err := l.prepare(); err != nil {
			return err
		}
		return l.run(fn)
	}))
}

// listing is one List: what many disks share is read once.
type listing struct {
	ctx     context.Context
	s       *Service
	r       catalog.Reader
	project string
	layers  bool
	space   pool.Space
	left    map[uuid.UUID]attachRecord

	mu   sync.Mutex
	keys map[string]*keystore.Info
	// names are those of the project's disks by id, once they are needed.
	names map[string]string
}

func (l *listing) prepare() error {
	// Where the pool does not tell its space there is no warning of it.
	l.space, _ = l.s.Pool.Space()
	l.left = map[uuid.UUID]attachRecord{}
	return catalog.Walk(l.r, "attachment/", func(p catalog.Pair, err error) error {
		if err != nil {
			return nil // attach and check tell of it
		}
		if a, err := parseAttachment(p.Key, p.Value); err == nil {
			l.left[a.Disk] = a
		}
		return nil
	})
}

// some is how many records one goroutine takes at a time.
const some = 256

// found is a record of a disk as it was read.
type found struct {
	catalog.Pair
	err error
}

// run reads on while what was read is made into disks, on every processor, and handed on in order.
func (l *listing) run(fn func(Disk) error) error {
	queue := make(chan chan []Disk, runtime.GOMAXPROCS(0))
	ctx, stop := context.WithCancel(l.ctx)
	defer stop()
	var reading error
	go func() {
		defer close(queue)
		reading = l.read(ctx, queue)
	}()
	var err error
	for made := range queue {
		for _, d := range <-made {
			if err == nil {
				err = fn(d)
			}
		}
		if err != nil {
			stop() // and wait for the reader: the view ends with this call
		}
	}
	return errors.Join(err, reading)
}

func (l *listing) read(ctx context.Context, queue chan<- chan []Disk) error {
	var batch []found
	send := func() {
		made, of := make(chan []Disk, 1), batch
		batch = nil
		queue <- made
		go func() { made <- l.describeAll(of) }()
	}
	project := []byte(`"project":"` + l.project + `"`)
	err := catalog.Walk(l.r, "disk/", func(p catalog.Pair, err error) error {
		// What is of another project is not looked at any further: there may be many.
		if err == nil && !bytes.Contains(p.Value, project) {
			return ctx.Err()
		}
		if batch = append(batch, found{p, err}); len(batch) == some {
			send()
		}
		return ctx.Err()
	})
	send()
	if ctx.Err() != nil {
		return nil // whoever stopped it knows why
	}
	return err
}

func (l *listing) describeAll(of []found) (disks []Disk) {
	var records []diskRecord
	for _, f := range of {
		var r diskRecord
		if f.err == nil {
			r, f.err = parseDisk(f.Key, f.Value)
		}
		if f.err != nil {
			if d, known := l.damaged(f); known {
				disks, records = append(disks, d), append(records, r)
			}
		} else if r.Project == l.project {
			disks, records = append(disks, l.describe(r)), append(records, r)
		}
	}
	if l.layers {
		l.addLayers(disks, records)
	}
	return disks
}

func (l *listing) describe(r diskRecord) Disk {
	d := l.s.plain(r)
	if r.Encrypted {
		d.Key = l.key(r)
	}
	var left *attachRecord
	if a, ok := l.left[r.ID]; ok {
		left = &a
	}
	d.Warnings = l.s.warnings(r, l.space, left)
	return d
}

// addLayers reads the layers of many disks, all tops at a time, then all that are below them.
func (l *listing) addLayers(disks []Disk, records []diskRecord) {
	at := map[string][]int{} // which disks wait for a layer
	for i, r := range records {
		if r.Top != uuid.Nil {
			at[layerKey(r.Top)] = append(at[layerKey(r.Top)], i)
		}
	}
	for len(at) > 0 {
		below := map[string][]int{}
		_ = catalog.GetAll(l.r, slices.Sorted(maps.Keys(at)), func(p catalog.Pair, err error) error {
			var rec layerRecord
			if err == nil {
				rec, err = parseLayer(p.Key, p.Value)
			}
			for _, i := range at[p.Key] {
				if err != nil {
					disks[i].Warnings = append(disks[i].Warnings, "its layers can't be read: "+err.Error())
					continue
				}
				next := rec.Merged // the layer in its place
				if next == uuid.Nil {
					disks[i].Layers = append(disks[i].Layers, l.s.files(rec))
					next = rec.Parent
				}
				if next != uuid.Nil {
					below[layerKey(next)] = append(below[layerKey(next)], i)
				}
			}
			delete(at, p.Key)
			return nil
		})
		for key, waiting := range at {
			for _, i := range waiting {
				disks[i].Warnings = append(disks[i].Warnings, fmt.Sprintf("the record %q of its layer is missing", key))
			}
		}
		at = below
	}
}

// key looks each key up once.
func (l *listing) key(r diskRecord) *keystore.Info {
	l.mu.Lock()
	defer l.mu.Unlock()
	info, ok := l.keys[r.Key]
	if !ok {
		info = l.s.keyOf(l.ctx, r)
		l.keys[r.Key] = info
	}
	return info
}

// damaged is what the name of a disk tells of it.
func (l *listing) damaged(f found) (d Disk, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.names == nil {
		l.names = map[string]string{}
		prefix := nameKey(l.project, "")
		_ = catalog.Walk(l.r, prefix, func(p catalog.Pair, err error) error {
			if err == nil {
				l.names[diskPrefix+string(p.Value)] = p.Key[len(prefix):]
			}
			return nil
		})
	}
	name, known := l.names[f.Key]
	return Disk{ID: f.Key[len(diskPrefix):], Name: name, Project: l.project, Status: Damaged, Warnings: []string{f.err.Error()}}, known
}
