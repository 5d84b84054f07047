package volume_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"log/slog"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/catalog/catalogtest"
	"nbdcrypt/pkg/clock"
	"nbdcrypt/pkg/pool/pooltest"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// mains is a rig whose catalog and pool hang on one cable.
type mains struct {
	*rig
	power *pooltest.Power
	lives int
	a     *volume.Attachment
}

func newMains(t *testing.T) *mains {
	t.Helper()
	m := &mains{rig: &rig{t: t}, power: pooltest.NewPower()}
	m.power.Strict()
	m.dir = filepath.Join(t.TempDir(), "none") // files of a pool, of which this one has none
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "state"), 0o700))
	var err error
	m.root, err = keystore.OpenRoot(filepath.Join(dir, "root.key"), filepath.Join(dir, "state"))
	must(t, err)
	t.Cleanup(m.root.Close)
	m.catalog = keystore.Seal(catalogtest.Asking(catalog.Memory(), m.power.Step), m.root)
	m.keys, err = keystore.Open(t.Context(), keystore.Config{Catalog: m.catalog, Root: m.root, Region: "local", Clock: clock.System{}})
	must(t, err)
	t.Cleanup(func() { _ = m.keys.Close() })
	_, _, err = m.keys.Grant(t.Context(), "grant", "default", "root")
	must(t, err)
	m.start()
	return m
}

func (m *mains) start() {
	m.t.Helper()
	m.lives++
	var err error
	m.Service, err = volume.Open(m.t.Context(), volume.Config{Catalog: m.catalog, Keys: m.keys, Pool: m.power, Clock: clock.System{},
		Log: slog.New(slog.DiscardHandler), Host: "here", Instance: fmt.Sprint(m.lives)})
	must(m.t, err)
	if bad := m.Unreadable(); len(bad) > 0 {
		m.t.Errorf("a start could not read %v", bad)
	}
}

// again starts after a cut. What was not flushed is lost, or some of it, or nothing: the process alone was killed.
func (m *mains) again(n int) {
	m.t.Helper()
	if m.a != nil {
		m.a.Abandon()
		m.a = nil
	}
	m.Service.Close()
	switch n % 3 {
	case 0:
		m.power.Restart(nil)
	case 1:
		m.power.Restart(rand.New(rand.NewPCG(1, uint64(n))))
	default:
		m.power.Resume()
	}
	m.start()
}

// has attaches a disk to see what it holds, which is b throughout.
func (m *mains) has(disk string, b byte) {
	m.t.Helper()
	m.with(disk, func(a *volume.Attachment) { m.reads(a, b, 0, mib) })
}

// is the byte that a disk holds at its beginning.
func (m *mains) first(disk string) (b byte) {
	m.t.Helper()
	m.with(disk, func(a *volume.Attachment) {
		got := make([]byte, 1)
		_, err := a.Device.ReadAt(got, 0)
		must(m.t, err)
		b = got[0]
	})
	return b
}

// empty deletes all there is, and sees that nothing is left, in the pool neither.
func (m *mains) empty() {
	m.t.Helper()
	m.cleaned()
	if left, err := m.power.List(m.t.Context()); err != nil || len(left) > 0 {
		m.t.Errorf("the pool has %v, %v", left, err)
	}
}

// cut tells how something goes on after a cut of the power in it.
type cut struct {
	name   string
	before func(m *mains)       // comes first, with the power on
	verb   func(m *mains) error // where the power goes
	after  func(m *mains, err error)
}

func snapshotThere(m *mains, name string) bool {
	_, err := m.Point(m.t.Context(), volume.SnapshotKind, "default", name)
	if err != nil {
		wantCode(m.t, err, refusal.NotFound)
	}
	return err == nil
}

// snapshotHolds makes a disk of a snapshot, which has to be there if its making was answered, and sees what that holds.
func snapshotHolds(m *mains, made error, b byte) {
	m.t.Helper()
	there := snapshotThere(m, "one")
	if made == nil && !there {
		m.t.Error("a snapshot that was answered is gone")
	}
	if there {
		m.linked("one", "seen")
		m.has("seen", b)
	}
	m.has("vault", b)
	// Whatever was cut off, it can be done again.
	_, err := m.CreateSnapshot(m.t.Context(), "anew", "default", "vault", "two")
	must(m.t, err)
}

var snapshotCuts = []cut{
	{"snapshot of an attached disk", func(m *mains) {
		m.create(small())
		m.a = m.attach("vault")
		m.writes(m.a, 'a', 0, mib)
		must(m.t, m.a.Device.Sync())
	}, func(m *mains) error {
		_, err := m.CreateSnapshot(m.t.Context(), "one", "default", "vault", "one")
		return err
	}, func(m *mains, err error) { snapshotHolds(m, err, 'a') }},
	{"snapshot of a detached disk", func(m *mains) {
		m.create(small())
		m.with("vault", func(a *volume.Attachment) { m.writes(a, 'a', 0, mib) })
	}, func(m *mains) error {
		_, err := m.CreateSnapshot(m.t.Context(), "one", "default", "vault", "one")
		return err
	}, func(m *mains, err error) { snapshotHolds(m, err, 'a') }},
	{"rollback", func(m *mains) {
		m.create(small())
		m.with("vault", func(a *volume.Attachment) { m.writes(a, 'a', 0, mib) })
		m.snap("vault", "one")
		m.with("vault", func(a *volume.Attachment) { m.writes(a, 'b', 0, mib) })
		m.snap("vault", "two")
		m.with("vault", func(a *volume.Attachment) { m.writes(a, 'c', 0, mib) })
	}, func(m *mains) error {
		_, err := m.Rollback(m.t.Context(), "back", "default", "vault", "one")
		return err
	}, func(m *mains, err error) {
		b := m.first("vault")
		if b != 'a' && (b != 'c' || err == nil) {
			m.t.Errorf("the disk holds %q, the rollback ended with %v", b, err)
		}
		m.has("vault", b)
		d, err := m.Get(m.t.Context(), "default", "vault")
		must(m.t, err)
		if n := m.records("dek/disk/" + d.ID); n != len(d.Layers) || m.records("trim-deks/") > 0 {
			m.t.Errorf("the disk has %d layers and the keys of %d", len(d.Layers), n)
		}
		_, err = m.Rollback(m.t.Context(), "forth", "default", "vault", "two")
		must(m.t, err)
		m.has("vault", 'b')
	}},
	{"linked disk", func(m *mains) {
		m.create(small())
		m.with("vault", func(a *volume.Attachment) { m.writes(a, 'a', 0, mib) })
		m.snap("vault", "one")
	}, func(m *mains) error {
		_, err := m.Create(m.t.Context(), "x", volume.Spec{Project: "default", Name: "x", From: &volume.From{Kind: volume.SnapshotKind, Ref: "one"}})
		return err
	}, func(m *mains, made error) {
		_, err := m.Get(m.t.Context(), "default", "x")
		if made == nil || err == nil {
			m.has("x", 'a')
		}
		m.linked("one", "y")
		m.has("y", 'a')
		m.has("vault", 'a')
	}},
	{"deletion of a disk with snapshots", func(m *mains) {
		m.create(small())
		m.with("vault", func(a *volume.Attachment) { m.writes(a, 'a', 0, mib) })
		m.snap("vault", "one")
		m.with("vault", func(a *volume.Attachment) { m.writes(a, 'b', 0, mib) })
		m.snap("vault", "two")
		m.linked("one", "x")
	}, func(m *mains) error { return m.Delete(m.t.Context(), "delete", "default", "vault") },
		func(m *mains, deleted error) {
			_, err := m.Get(m.t.Context(), "default", "vault")
			if deleted == nil || err != nil {
				wantCode(m.t, err, refusal.NotFound)
				if snapshotThere(m, "one") || snapshotThere(m, "two") {
					m.t.Error("a snapshot outlived its disk")
				}
			} else {
				m.has("vault", 'b')
			}
			m.has("x", 'a')
		}},
}

// small is a disk that is quickly filled.
func small() volume.Spec {
	s := secretDisk
	s.Size = mib
	return s
}

// The power goes after each operation of the catalog and the pool: what was answered holds, and nothing is left half done or behind.
func TestSnapshotsWhenThePowerGoes(t *testing.T) { playCuts(t, snapshotCuts) }

func playCuts(t *testing.T, cuts []cut) {
	for _, c := range cuts {
		t.Run(c.name, func(t *testing.T) {
			for n, done := 0, false; !done; n++ {
				m := newMains(t)
				c.before(m)
				m.power.CutAfter(n)
				err := c.verb(m)
				if done = !m.power.Off(); done {
					m.power.CutAfter(-1)
					must(t, err)
				}
				m.again(n)
				c.after(m, err)
				m.empty()
				if t.Failed() {
					t.Fatalf("cut at %d, the verb ended with %v", n, err)
				}
				if n > 500 {
					t.Fatal("it never ends")
				}
			}
		})
	}
}
