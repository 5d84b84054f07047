package volume_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"pgregory.net/rapid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/catalog/catalogtest"
	"nbdcrypt/pkg/clock"
	"nbdcrypt/pkg/pool/pooltest"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// world is disks on storage that can lose power, with the model of what they should hold.
type world struct {
	rt     *rapid.T
	played map[string]int

	dir     string // for the key store's files
	power   *pooltest.Power
	storage *pooltest.Faults // over it
	root    *keystore.Root
	catalog catalog.Store
	keys    *keystore.Store
	s       *volume.Service
	lives   int
	calls   int // counts what needs another name each time

	disks  []*modelDisk
	points []*modelPoint
	// doubt is called at the start after a cut, to see what became of the verb that it fell on. It may be nil.
	doubt func()
	armed bool // the power will go
	lost  bool // and what was not flushed is lost with it: it is not just the end of the process
}

// modelDisk is what the model knows of a disk.
type modelDisk struct {
	*content
	spec volume.Spec
	a    *volume.Attachment // nil where it is not attached
	// either is what it holds if a verb was done before the cut that fell on it; nil where there was none.
	either []byte
}

var background = context.Background()

func newWorld(rt *rapid.T, played map[string]int) *world {
	dir, err := os.MkdirTemp("/dev/shm", "nbdc") // in memory, where there is some: syncs of the key store's files are not what is tested here
	if err != nil {
		dir, err = os.MkdirTemp("", "nbdc")
	}
	w := &world{rt: rt, played: played, dir: dir, power: pooltest.NewPower()}
	w.sure(err)
	w.sure(os.Mkdir(filepath.Join(dir, "state"), 0o700))
	w.root, err = keystore.OpenRoot(filepath.Join(dir, "root.key"), filepath.Join(dir, "state"))
	w.sure(err)
	w.power.Strict()
	w.storage = pooltest.NewFaults(w.power)
	w.catalog = keystore.Seal(catalogtest.Asking(catalog.Memory(), w.power.Step), w.root)
	w.open()
	_, _, err = w.keys.Grant(background, w.call(), "default", "root")
	w.sure(err)
	return w
}

// sure fails on an error that can't be.
func (w *world) sure(err error) {
	if err != nil {
		w.rt.Helper()
		w.rt.Fatal(err)
	}
}

// call is a request id.
func (w *world) call() string {
	w.calls++
	return fmt.Sprint("call ", w.calls)
}

// open starts on what is there. The power may go on the way.
func (w *world) open() {
	w.lives++
	var err error
	w.keys, err = keystore.Open(background, keystore.Config{Catalog: w.catalog, Root: w.root, Region: "local", Clock: clock.System{}})
	if err == nil {
		w.s, err = volume.Open(background, volume.Config{Catalog: w.catalog, Keys: w.keys, Pool: w.storage, Clock: clock.System{},
			Log: slog.New(slog.DiscardHandler), Host: "here", Instance: fmt.Sprint(w.lives)})
	}
	if err != nil && !w.power.Off() {
		w.rt.Fatalf("a start: %v", err)
	}
	if err == nil && len(w.s.Unreadable()) > 0 {
		w.rt.Fatalf("a start could not read %v", w.s.Unreadable())
	}
}

// close ends this life: what it has open is let go as it is.
func (w *world) close() {
	for _, d := range w.disks {
		if d.a != nil {
			d.a.Abandon()
			d.a = nil
		}
	}
	if w.s != nil {
		w.s.Close()
	}
	if w.keys != nil {
		w.sure(w.keys.Close())
	}
	w.s, w.keys = nil, nil
}

// end leaves nothing of the world.
func (w *world) end() {
	if !w.power.Off() {
		w.power.CutAfter(0)
	}
	w.close()
	w.root.Close()
	_ = os.RemoveAll(w.dir)
}

// slowly has each operation of the storage take a moment while work is done, so that what goes on at the same time meets.
func (w *world) slowly(work func()) {
	w.storage.Hook(func(pooltest.Call) error {
		time.Sleep(20 * time.Microsecond)
		return nil
	})
	defer w.storage.Hook(nil)
	work()
}

// arm has the power go at one of the next operations, with or without what was not flushed. Often that is within the next change of layers.
func (w *world) arm() {
	n := w.below(150, "operations until the cut")
	w.lost = rapid.Bool().Draw(w.rt, "what was not flushed is lost")
	at := w.below(4, "within")
	if at > 0 {
		n /= 3
	}
	w.rt.Logf("the power goes after %d operations", n)
	w.power.CutAfter(n)
	w.armed = true
	if at > 0 {
		pick(w, "what the cut falls on", []func(*world){(*world).snapshot, (*world).rollback, (*world).deletePoint, (*world).clone, (*world).rekey,
			(*world).merge, (*world).image, (*world).delete})(w)
	}
}

// recover starts again after a cut, which may be followed by others.
func (w *world) recover() {
	w.rt.Logf("the power is gone; lost: %v", w.lost)
	for {
		w.close()
		if w.lost {
			w.power.Restart(rand.New(rand.NewPCG(rapid.Uint64().Draw(w.rt, "what is left"), 7)))
		} else {
			w.power.Resume()
		}
		again := w.oneIn(4, "cut while it starts")
		if again {
			w.power.CutAfter(w.below(20, "operations of the start"))
		}
		w.open()
		if !w.power.Off() {
			w.power.CutAfter(-1)
			break
		}
	}
	w.armed = false
	w.played["cut"]++
	if w.doubt != nil {
		w.doubt()
		w.doubt = nil
	}
	for _, d := range w.disks {
		got := w.readDisk(d)
		if err := d.allows(got); err != nil && !bytes.Equal(got, d.either) {
			w.rt.Fatalf("disk %s after the cut: %v", d.spec.Name, err)
		}
		d.take(got)
		d.either = nil
	}
	for _, p := range w.points {
		w.comparePoint(p)
	}
}

// restart stops and starts in good order, as far as the power lasts.
func (w *world) restart() {
	for _, d := range w.disks {
		if d.a != nil && !w.detachDisk(d) {
			return
		}
	}
	w.rt.Log("restart")
	w.close()
	w.open()
}

// went tells whether a verb has done what it should. Where the power went it may not have; nothing else may keep it from it.
func (w *world) went(verb string, err error) bool {
	switch {
	case err == nil:
		w.played[verb]++
		return true
	case w.power.Off():
		w.played[verb+" cut"]++
		return false
	}
	w.rt.Helper()
	w.rt.Fatalf("%s: %v", verb, err)
	return false
}

// refused tells whether a verb was refused with that code, as it had to be, or cut.
func (w *world) refused(verb string, err error, code refusal.Code) {
	if w.power.Off() {
		return
	}
	var r *refusal.Error
	if !errors.As(err, &r) || r.Code != code {
		w.rt.Helper()
		w.rt.Fatalf("%s should be refused with %d: %v", verb, code, err)
	}
	w.played[verb+" refused"]++
}
