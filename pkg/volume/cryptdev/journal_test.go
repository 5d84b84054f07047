package cryptdev_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	gosync "sync"
	"syscall"
	"testing"

	"github.com/google/uuid"

	"nbdcrypt/pkg/pool/pooltest"
	"nbdcrypt/pkg/volume/layer"
)

// killed is a tower whose process is killed at some operation of the storage: what it wrote until then is there, in the journals and in the
// pool, and nothing that it does afterwards.
type killed struct {
	*tower
	power  *pooltest.Power
	faults *pooltest.Faults
	kept   string // where the journals lie as they were

	mu   gosync.Mutex
	left int // operations until then, negative for never
	gone bool
}

func newKilled(t *testing.T, size int64, encrypted bool) *killed {
	t.Helper()
	power := pooltest.NewPower()
	k := &killed{power: power, faults: pooltest.NewFaults(power), kept: t.TempDir(), left: -1}
	journals, err := layer.OpenJournals(t.TempDir() + "/journal/store")
	must(t, err)
	k.tower = newTower(t, k.faults, size, encrypted)
	k.writes = layer.Options{Journals: journals}
	k.faults.Hook(k.step)
	k.commit = func() error { // a layer that was being opened when the process ended is no part of the disk
		if k.isGone() {
			return pooltest.ErrPower
		}
		return nil
	}
	return k
}

// step counts an operation; the one that is too many is where the process ends.
func (k *killed) step(pooltest.Call) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.left > 0 {
		k.left--
	}
	if k.left == 0 && !k.gone {
		k.gone = true
		putFiles(k.t, k.writes.Journals.Dir, k.kept)
	}
	if k.gone {
		return fmt.Errorf("%w (%w)", pooltest.ErrPower, syscall.EIO)
	}
	return nil
}

func (k *killed) isGone() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.gone
}

func (k *killed) killAfter(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.left = n
}

// restart begins a new process, after the end of the old one alone, or after a power cut, which draws from rng what the storage kept.
func (k *killed) restart(cut bool, rng *rand.Rand) {
	k.t.Helper()
	for _, l := range k.levels {
		l.closeAll()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	putFiles(k.t, k.kept, k.writes.Journals.Dir)
	if k.left, k.gone = -1, false; cut {
		k.power.Restart(rng)
		k.writes.Journals.Boot = uuid.New()
	} else {
		k.power.Resume()
	}
}

// recover does what a start does for a disk that was attached: all that its journals say is made durable, or nothing.
func (k *killed) recover() error {
	var levels []*level
	var changes [][]layer.Change
	for i, l := range k.levels {
		if i == 0 {
			l.size = k.size
		} else if l.sealed {
			break
		}
		list, err := k.writes.Journals.Read(k.faults, l.header.ID, k.writes.Opening, l.size)
		if err != nil {
			return err
		}
		levels, changes = append(levels, l), append(changes, list)
	}
	for i := len(levels) - 1; i >= 0; i-- {
		open, err := levels[i].tryLayer(layer.Options{Unclean: true, Replay: changes[i]})
		if err == nil {
			err = errors.Join(open.Flush(), open.Close())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// putFiles puts the files of one folder into the place of those of another; journals are mostly holes.
func putFiles(t testing.TB, from, to string) {
	t.Helper()
	old, err := filepath.Glob(to + "/*")
	must(t, err)
	for _, path := range old {
		must(t, os.Remove(path))
	}
	list, err := filepath.Glob(from + "/*")
	must(t, err)
	for _, path := range list {
		in, err := os.Open(path)
		must(t, err)
		out, err := os.Create(filepath.Join(to, filepath.Base(path)))
		must(t, err)
		length, err := in.Seek(0, io.SeekEnd)
		must(t, err)
		must(t, out.Truncate(length)) // its end is a hole
		for at := int64(0); ; {
			if at, err = syscall.Seek(int(in.Fd()), at, 3); err != nil { // SEEK_DATA
				break
			}
			buf := make([]byte, 64<<10)
			n, err := in.ReadAt(buf, at)
			if err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			_, err = out.WriteAt(buf[:n], at)
			must(t, err)
			at += int64(n)
		}
		must(t, errors.Join(in.Close(), out.Close()))
	}
}

// answered tells whether a disk holds what was answered: before, or where the operation that was cut off has changed it, what that wanted.
func (m *model) answered(got []byte) error {
	for i := range len(got) / sector {
		is := got[i*sector:][:sector]
		if !bytes.Equal(is, m.sector(i)) && (i >= len(m.before)/sector || !bytes.Equal(is, m.before[i*sector:][:sector])) {
			return fmt.Errorf("sector %d (byte %d) is not what was answered", i, m.base+int64(i*sector))
		}
	}
	copy(m.now, got)
	m.durable(m.base, int64(len(m.now)))
	return nil
}

// TestKillsLoseNothing: after a kill at any operation of the storage, also while the one before is being recovered, everything that was answered is
// there, over stacks that change. After a power cut no journal is believed, and what was flushed is there.
func TestKillsLoseNothing(t *testing.T) {
	kills := 40
	if testing.Short() {
		kills = 12
	}
	for _, encrypted := range []bool{true, false} {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("encrypted=%v/seed=%d", encrypted, seed), func(t *testing.T) { playKills(t, seed, encrypted, kills) })
		}
	}
}

func playKills(t *testing.T, seed uint64, encrypted bool, kills int) {
	rng := rand.New(rand.NewPCG(seed, 44))
	const first = 5*4096 + 3*sector
	k := newKilled(t, windowAt+first, encrypted)
	m := newModel(windowAt, first)
	m.dead = k.isGone
	k.writes.Opening = uuid.New()
	k.open()
	for kill := range kills {
		k.killAfter(1 + rng.IntN(300))
		var err error
		for err == nil {
			err = k.tower.step(rng, m)
		}
		if !errors.Is(err, pooltest.ErrPower) {
			t.Fatalf("before kill %d: %v", kill, err)
		}
		cut := rng.IntN(4) == 0
		k.restart(cut, rng)
		for tries := 0; ; tries++ {
			if tries < 3 {
				k.killAfter(1 + rng.IntN(30))
			}
			if err = k.recover(); !k.isGone() && !errors.Is(err, pooltest.ErrPower) {
				break
			}
			k.restart(false, nil)
		}
		k.killAfter(-1)
		must(t, k.writes.Journals.Sweep(func(_, _ uuid.UUID) bool { return false }))
		if cut != errors.Is(err, layer.ErrStale) || err != nil && !cut {
			t.Fatalf("kill %d: recovered: %v (cut: %v)", kill, err, cut)
		}
		k.writes.Opening = uuid.New()
		got := read(t, k.open(), m.base, len(m.now))
		if cut {
			err = m.recover(got)
		} else {
			err = m.answered(got)
		}
		if err != nil {
			t.Fatalf("after kill %d (cut: %v): %v", kill, cut, err)
		}
		for _, p := range k.points {
			if err := k.look(p, m.base); err != nil {
				t.Fatalf("after kill %d: %v", kill, err)
			}
		}
		k.points = k.points[max(0, len(k.points)-4):]
	}
}
