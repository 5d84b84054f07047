package volume_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/pool/pooltest"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// newGuarded is a rig whose disks have journals, with a disk that is attached and has writes that no flush has covered.
func newGuarded(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	r.journal = filepath.Join(t.TempDir(), "journal", "store")
	r.restart()
	r.create(secretDisk)
	r.unflushed(r.attach("vault"))
	return r
}

// unflushed writes what inside knows to be there. The first half was flushed, and written anew or given up since.
func (r *rig) unflushed(a *volume.Attachment) {
	r.t.Helper()
	for _, b := range []byte{9, 1} {
		_, err := a.Device.WriteAt(bytes.Repeat([]byte{b}, 2*mib), 0)
		must(r.t, err)
		if b == 9 {
			must(r.t, a.Device.Sync())
		}
	}
	must(r.t, a.Device.TrimAt(mib+100, mib/2))
	_, err := a.Device.WriteAt(bytes.Repeat([]byte{2}, mib), 2*mib+1000)
	must(r.t, err)
}

func inside() []byte {
	p := append(bytes.Repeat([]byte{1}, 2*mib), make([]byte, 2*mib)...)
	clear(p[mib+100:][:mib/2])
	copy(p[2*mib+1000:], bytes.Repeat([]byte{2}, mib))
	return p
}

func (r *rig) holdsAll(a *volume.Attachment, want []byte) {
	r.t.Helper()
	got := make([]byte, len(want))
	_, err := a.Device.ReadAt(got, 0)
	must(r.t, err)
	if !bytes.Equal(got, want) {
		r.t.Fatal("what was answered is not there")
	}
}

// journals are the files of journals.
func (r *rig) journals() (names []string) {
	r.t.Helper()
	names, err := filepath.Glob(r.journal + "/*")
	must(r.t, err)
	return names
}

// wholly attaches a disk of which nothing may be lost.
func (r *rig) wholly(name string) *volume.Attachment {
	r.t.Helper()
	a := r.attach(name)
	if a.Unclean || len(a.Warnings) > 0 {
		r.t.Fatalf("unclean %v, warnings %q", a.Unclean, a.Warnings)
	}
	return a
}

// A daemon that was killed loses nothing that was answered: the next start makes it durable, without a key, and nobody is warned.
func TestKilledRunIsRecovered(t *testing.T) {
	r := newGuarded(t)
	r.kill()
	r.restart()
	lossy, recovered, err := r.LeftAttached(t.Context())
	if err != nil || len(lossy) != 0 || !slices.Equal(recovered, []string{"vault"}) {
		t.Errorf("left: %v, recovered %v, %v", lossy, recovered, err)
	}
	if left := r.journals(); len(left) != 0 {
		t.Errorf("journals are left: %v", left)
	}
	d, err := r.Get(t.Context(), "default", "vault")
	if err != nil || len(d.Warnings) != 0 || d.Status != volume.Available {
		t.Errorf("%+v, %v", d, err)
	}
	s := spec("vault")
	s.ReadOnly = true
	a, err := r.Attach(t.Context(), "ro", s)
	must(t, err)
	if r.holdsAll(a, inside()); a.Unclean || len(a.Warnings) > 0 {
		t.Errorf("unclean %v, warnings %q", a.Unclean, a.Warnings)
	}
	_, err = r.detach("vault")
	must(t, err)
	r.holdsAll(r.wholly("vault"), inside())
	if warnings, err := r.detach("vault"); err != nil || len(warnings) > 0 || len(r.journals()) > 0 {
		t.Errorf("%v, %v; journals %v", warnings, err, r.journals())
	}
}

// What nobody can know is told, as it was before there were journals.
func TestNotRecovered(t *testing.T) {
	for _, c := range []struct {
		what  string
		spoil func(t *testing.T, r *rig)
	}{
		{"no journal", func(t *testing.T, r *rig) { must(t, os.Remove(r.journals()[0])) }},
		{"an empty one", func(t *testing.T, r *rig) { must(t, os.Truncate(r.journals()[0], 0)) }},
		{"a damaged one", func(t *testing.T, r *rig) {
			f, err := os.OpenFile(r.journals()[0], os.O_RDWR, 0)
			must(t, err)
			_, err = f.WriteAt([]byte{0xff}, 4096+32<<20+40) // in the second half, since there was one flush
			must(t, errors.Join(err, f.Close()))
		}},
		{"none looked for", func(t *testing.T, r *rig) { r.journal = "" }},
		{"files put back from a copy", func(t *testing.T, r *rig) {
			for _, path := range r.files() {
				b, err := os.ReadFile(path)
				must(t, err)
				must(t, os.WriteFile(path+"~", b, 0o600))
				must(t, os.Rename(path+"~", path))
			}
		}},
		{"storage that fails", func(t *testing.T, r *rig) { r.atStart = failing(pooltest.OpDrop) }},
		{"a pool that has lost writes", func(t *testing.T, r *rig) { r.atStart = failing(pooltest.OpPool) }},
		{"a failed sync", func(t *testing.T, r *rig) {
			// Of a disk that is attached again and killed in the same moment.
			r.restart()
			a := r.wholly("vault")
			r.unflushed(a)
			r.faults.Hook(failing(pooltest.OpFlush))
			if a.Device.Sync() == nil {
				t.Error("it did not fail")
			}
			r.kill()
			r.Service.Close()
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			r := newGuarded(t)
			r.kill()
			c.spoil(t, r)
			r.restart()
			r.faults.Hook(nil)
			lossy, recovered, err := r.LeftAttached(t.Context())
			if err != nil || len(recovered) != 0 || !slices.Equal(lossy, []string{"vault"}) {
				t.Errorf("left: %v, recovered %v, %v", lossy, recovered, err)
			}
			if a := r.attach("vault"); !a.Unclean || len(a.Warnings) != 1 {
				t.Errorf("unclean %v, warnings %q", a.Unclean, a.Warnings)
			}
		})
	}
}

func failing(op pooltest.Op) func(pooltest.Call) error {
	return func(c pooltest.Call) error {
		if c.Op == op {
			return syscall.EIO
		}
		return nil
	}
}

// A recovery that had no room is not one that failed: it is tried again by whoever touches the disk next, and loses nothing.
func TestRecoveredLater(t *testing.T) {
	for what, do := range map[string]func(r *rig) error{
		"attach": func(*rig) error { return nil },
		"extend": func(r *rig) error {
			_, err := r.Extend(r.t.Context(), "x", "default", "vault", 8*mib)
			return err
		},
		"snapshot": func(r *rig) error {
			p, err := r.CreateSnapshot(r.t.Context(), "s", "default", "vault", "snap")
			if len(p.Warnings) > 0 {
				r.t.Errorf("%q", p.Warnings)
			}
			return err
		},
		"rekey": func(r *rig) error {
			_, err := r.Rekey(r.t.Context(), "k", "default", "vault", volume.Work{})
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			r := newGuarded(t)
			r.kill()
			r.atStart = func(c pooltest.Call) error {
				if c.Op == pooltest.OpWrite && strings.HasSuffix(c.Volume, "/map") {
					return syscall.ENOSPC
				}
				return nil
			}
			r.restart()
			r.faults.Hook(nil)
			must(t, do(r))
			r.holdsAll(r.wholly("vault"), inside())
		})
	}
}

// A start without the pool, which somebody has yet to mount, costs nothing of what the journals have.
func TestRecoveredOnceThePoolIsThere(t *testing.T) {
	r := newGuarded(t)
	r.kill()
	must(t, os.Rename(r.dir, r.dir+"-away"))
	r.restart()
	if _, err := r.Attach(t.Context(), "too soon", spec("vault")); err == nil {
		t.Error("attached without a pool")
	}
	must(t, errors.Join(os.RemoveAll(r.dir), os.Rename(r.dir+"-away", r.dir)))
	r.restart()
	r.holdsAll(r.wholly("vault"), inside())
}

// What one attachment may have lost is told to whoever attaches the disk next, also where the one who asked first was not answered: and once.
func TestUncleanIsToldToSomebody(t *testing.T) {
	r := newGuarded(t)
	r.kill()
	must(t, os.RemoveAll(r.journal))
	k := r.mortal(0)
	s := spec("vault")
	s.Released = func(string, *keystore.KeyVersionRef) error {
		k.left.Store(1)
		return errors.New("killed")
	}
	if _, err := r.Attach(t.Context(), "unanswered", s); err == nil {
		t.Error("it was answered")
	}
	r.restart()
	if lossy, _, err := r.LeftAttached(t.Context()); err != nil || len(lossy) != 1 {
		t.Errorf("left: %v, %v", lossy, err)
	}
	if a := r.attach("vault"); !a.Unclean {
		t.Error("nobody is told")
	}
	r.Service.Close() // what it still has to keep it keeps
	r.kill()
	r.restart()
	r.wholly("vault")
}

// A disk whose journal can't be written is used as any other, and says so; once it can, and a flush has succeeded, it is guarded again.
func TestWithoutAJournal(t *testing.T) {
	r := newGuarded(t)
	_, err := r.detach("vault")
	must(t, err)
	var told atomic.Int32
	r.unguarded = func(error) { told.Add(1) }
	r.restart()
	off := func() bool {
		d, err := r.Get(t.Context(), "default", "vault")
		must(t, err)
		return strings.Contains(strings.Join(d.Warnings, " "), "journal is off")
	}
	must(t, os.RemoveAll(r.journal))
	a := r.wholly("vault")
	r.unflushed(a)
	if r.Service.Close(); !off() || told.Load() != 1 {
		t.Errorf("off: %v; told %d times", off(), told.Load())
	}
	must(t, os.Mkdir(r.journal, 0o700))
	must(t, a.Device.TrimAt(0, mib))
	must(t, a.Device.Sync())
	if off() {
		t.Error("it is off after a flush")
	}
	r.unflushed(a)
	r.kill()
	r.restart()
	r.holdsAll(r.wholly("vault"), inside())
}

// Whoever goes on from an attachment gets the disk as that one left it, or nothing: then the disk stays as it was, with all that is to be told.
func TestContinues(t *testing.T) {
	lose := func(r *rig) { must(r.t, os.RemoveAll(r.journal)) }
	again := func(r *rig) {
		r.attach("vault")
		_, err := r.detach("vault")
		must(r.t, err)
	}
	for _, c := range []struct {
		what         string
		clean        bool
		first, after func(*rig)
		granted      bool
	}{
		{"killed", false, nil, nil, true},
		{"stopped", true, nil, nil, true},
		{"killed, and its journal lost", false, lose, nil, false},
		{"killed, and attached by somebody meanwhile", false, nil, again, false},
		{"stopped, and attached by somebody meanwhile", true, nil, again, false},
		{"rolled back meanwhile", true, nil, func(r *rig) {
			_, err := r.Rollback(r.t.Context(), "back", "default", "vault", "before")
			must(r.t, err)
		}, false},
		{"refused to somebody meanwhile", false, nil, func(r *rig) {
			s := spec("vault")
			s.Released = func(string, *keystore.KeyVersionRef) error { return errors.New("no") }
			if _, err := r.Attach(r.t.Context(), "no", s); err == nil {
				r.t.Error("it was not")
			}
		}, true},
		{"made anew", true, nil, func(r *rig) {
			must(r.t, r.Delete(r.t.Context(), "d", "default", "vault"))
			r.Create(r.t.Context(), "anew", secretDisk)
		}, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			r := newGuarded(t)
			_, err := r.CreateSnapshot(t.Context(), "b", "default", "vault", "before")
			must(t, err)
			a := r.Attachments()[0]
			from := volume.Continues{Disk: a.Disk, Epoch: a.Epoch()}
			if c.clean {
				_, err := r.detach("vault")
				must(t, err)
			}
			if r.kill(); c.first != nil {
				c.first(r)
			}
			if r.restart(); c.after != nil {
				c.after(r)
			}
			s := spec("vault")
			s.Continues = &from
			a, err = r.Attach(t.Context(), "on", s)
			if c.granted {
				must(t, err)
				if r.holdsAll(a, inside()); a.Unclean {
					t.Error("unclean")
				}
				return
			}
			if wantCode(t, err, refusal.Damaged); len(r.Attachments()) != 0 {
				t.Error("attached all the same")
			}
			if lost := c.first != nil; r.attach("vault").Unclean != lost {
				t.Errorf("unclean is not %v for the next who attaches", lost)
			}
		})
	}
}

// At whatever commit or operation of the pool a run is killed, within a snapshot too, and at whatever the recovery is, what was answered is there.
func TestKilledAnywhereIsRecovered(t *testing.T) {
	step := 1
	if testing.Short() {
		step = 7
	}
	r := newGuarded(t)
	kept := r.journal + "-kept"
	for n, done := 1, false; !done; n += step {
		_, err := r.detach(r.Attachments()[0].Name)
		must(t, err)
		name := fmt.Sprint("disk", n)
		r.create(volume.Spec{Project: "default", Name: name, Size: 4 * mib, SectorSize: 512, Encrypted: n%2 == 0})
		k := r.mortal(n)
		k.died = func() { r.keepJournals(kept) }
		before, after := r.change(k, name)
		done = !k.dead.Load()
		for at := 1; k.dead.Load(); at += step {
			r.kill()
			must(t, errors.Join(os.RemoveAll(r.journal), os.Rename(kept, r.journal)))
			k = &killer{died: func() { r.keepJournals(kept) }}
			k.left.Store(int64(at))
			_ = r.runUnder(k) // also what a start can't do for being killed
		}
		r.kill()
		r.restart()
		a := r.wholly(name)
		got := make([]byte, len(before))
		_, err = a.Device.ReadAt(got, 0)
		must(t, err)
		if !bytes.Equal(got, before) && !bytes.Equal(got, after) {
			t.Fatalf("killed at step %d: what was answered is not there", n)
		}
	}
}

// keepJournals copies the journals as they are.
func (r *rig) keepJournals(to string) {
	out, err := exec.Command("sh", "-c", `rm -rf "$1" && cp -r --sparse=always "$0" "$1"`, r.journal, to).CombinedOutput()
	if err != nil {
		r.t.Errorf("%v: %s", err, out)
	}
}

// change attaches a disk and changes it, with a snapshot in the middle, until the run is killed. It tells what the disk held before and after the
// operation that was begun last.
func (r *rig) change(k *killer, name string) (before, after []byte) {
	after = make([]byte, 4*mib)
	before = bytes.Clone(after)
	a, err := r.Attach(r.t.Context(), "attach "+name, spec(name))
	for i := range 12 {
		if err != nil || k.dead.Load() {
			break
		}
		before = bytes.Clone(after)
		off, p := int64(i*7%10)*300000, bytes.Repeat([]byte{byte(i + 1)}, 50000)
		switch i {
		case 3:
			err = a.Device.TrimAt(off, 200000)
			clear(after[off:][:200000])
		case 5:
			_, err = r.CreateSnapshot(r.t.Context(), "snapshot "+name, "default", name, "s"+name)
		case 8:
			err = a.Device.Sync()
		default:
			_, err = a.Device.WriteAt(p, off)
			copy(after[off:], p)
		}
	}
	return before, after
}
