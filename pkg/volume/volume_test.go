package volume_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/clock"
	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/pool/pooltest"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

const mib = 1 << 20

// rig is a key store, a pool with faults and the disks on them, which can be opened anew as after a restart.
type rig struct {
	failed  []string
	t       testing.TB
	catalog catalog.Store
	root    *keystore.Root
	keys    *keystore.Store
	faults  *pooltest.Faults
	dir     string
	journal string                    // where journals lie; empty for none
	atStart func(pooltest.Call) error // hooks what a start asks of the pool
	// unguarded is told where there is no journal.
	unguarded func(error)
	*volume.Service
}

func newRig(t testing.TB) *rig {
	t.Helper()
	state, key := filepath.Join(t.TempDir(), "state"), filepath.Join(t.TempDir(), "root.key")
	must(t, os.Mkdir(state, 0o700))
	root, err := keystore.OpenRoot(key, state)
	must(t, err)
	t.Cleanup(root.Close)
	r := &rig{t: t, root: root, dir: filepath.Join(t.TempDir(), "pool")}
	r.catalog = keystore.Seal(catalog.Memory(), root)
	r.keys, err = keystore.Open(t.Context(), keystore.Config{Catalog: r.catalog, Root: root, Region: "local", Clock: clock.System{}})
	must(t, err)
	t.Cleanup(func() { _ = r.keys.Close() })
	_, _, err = r.keys.Grant(t.Context(), "grant", "default", "root")
	must(t, err)
	r.restart()
	return r
}

// restart opens the disks as a new run of the daemon does.
func (r *rig) restart() {
	r.t.Helper()
	files, err := pool.OpenFiles(r.dir)
	must(r.t, err)
	r.faults = pooltest.NewFaults(files)
	r.faults.Hook(r.atStart)
	r.Service, err = volume.Open(r.t.Context(), volume.Config{Catalog: r.catalog, Keys: r.keys, Pool: r.faults,
		Clock: clock.System{}, Log: slog.New(slog.DiscardHandler), Host: "here", Instance: time.Now().String(), Backups: r.dir + "-backups", Journal: r.journal, Unguarded: r.unguarded,
		Failed: func(a *volume.Attachment, cause error) { r.failed = append(r.failed, a.Name+": "+cause.Error()) }})
	must(r.t, err)
	r.t.Cleanup(r.Service.Close)
}

func (r *rig) create(spec volume.Spec) volume.Disk {
	r.t.Helper()
	d, err := r.Create(r.t.Context(), "create "+spec.Name[:min(20, len(spec.Name))], spec)
	must(r.t, err)
	return d
}

func (r *rig) attach(name string) *volume.Attachment {
	r.t.Helper()
	a, err := r.Attach(r.t.Context(), "attach", spec(name))
	must(r.t, err)
	return a
}

func spec(name string) volume.AttachSpec {
	return volume.AttachSpec{Project: "default", Disk: name, By: "root",
		Released: func(string, *keystore.KeyVersionRef) error { return nil }}
}

func (r *rig) detach(name string) ([]string, error) {
	return r.Detach(r.t.Context(), "detach", leave(name))
}

func leave(name string) volume.DetachSpec {
	return volume.DetachSpec{Project: "default", Disk: name, Drain: func(*volume.Attachment) error { return nil }}
}

// files lists what is in the pool.
func (r *rig) files() []string {
	paths, err := filepath.Glob(filepath.Join(r.dir, "*", "*"))
	must(r.t, err)
	return paths
}

// keysOf counts the records under a prefix.
func (r *rig) records(prefix string) (n int) {
	r.t.Helper()
	must(r.t, r.catalog.View(r.t.Context(), func(c catalog.Reader) error {
		pairs, err := c.Scan(prefix, "", 1000)
		n = len(pairs)
		return err
	}))
	return n
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t testing.TB, err error, code refusal.Code) {
	t.Helper()
	if refusal.CodeOf(err) != code {
		t.Errorf("code %d, want %d: %v", refusal.CodeOf(err), code, err)
	}
	if err != nil && refusal.From(err).Hint == "" {
		t.Errorf("no hint: %v", err)
	}
}

var secretDisk = volume.Spec{Project: "default", Name: "vault", Size: 4 * mib, SectorSize: 512, Encrypted: true}

func TestLifeOfADisk(t *testing.T) {
	for _, s := range []volume.Spec{secretDisk,
		{Project: "default", Name: "plain", Size: 4 * mib, SectorSize: 4096},
		{Project: "default", Name: "big-sectors", Size: 4 * mib, SectorSize: 4096, Encrypted: true}} {
		t.Run(s.Name, func(t *testing.T) {
			r := newRig(t)
			d := r.create(s)
			if d.Status != volume.Available || d.Encrypted != s.Encrypted || (d.Key != nil) != s.Encrypted {
				t.Errorf("created: %+v", d)
			}
			a := r.attach(s.Name)
			want := bytes.Repeat([]byte("known plaintext "), 1000)
			_, err := a.Device.WriteAt(want, 12345)
			must(t, err)
			_, err = r.detach(s.Name)
			must(t, err)
			r.restart()
			a = r.attach(d.ID) // ids work where names do
			got := make([]byte, len(want))
			_, err = a.Device.ReadAt(got, 12345)
			must(t, err)
			if !bytes.Equal(got, want) || len(a.Warnings) > 0 {
				t.Errorf("after a restart: equal=%v, warnings %v", bytes.Equal(got, want), a.Warnings)
			}
			_, err = r.detach(s.Name)
			must(t, err)
			must(t, r.Delete(t.Context(), "delete", "default", s.Name))
			if left := append(r.files(), strings.Repeat("x", r.records("disk")+r.records("layer/")+r.records("dek/"))); len(left) != 1 || left[0] != "" {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestNamesAndSizes(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"", "a/b", "a\x00b", strings.Repeat("n", 300), strings.Repeat("n", 129), "-x", ".x", "ä",
		"0190b5a0-0000-7000-8000-000000000001"} {
		s := secretDisk
		s.Name = name
		_, err := r.Create(t.Context(), "r", s)
		wantCode(t, err, refusal.Usage)
		_, err = r.Get(t.Context(), "default", name)
		wantCode(t, err, refusal.NotFound)
	}
	for _, size := range []int64{0, -1, -512, 513, 1<<50 + 512, 1 << 62} {
		s := secretDisk
		s.Size = size
		_, err := r.Create(t.Context(), "r", s)
		wantCode(t, err, refusal.Usage)
	}
	for _, sector := range []int{0, 1, 1024, 8192, -512} {
		s := secretDisk
		s.SectorSize = sector
		_, err := r.Create(t.Context(), "r", s)
		wantCode(t, err, refusal.Usage)
	}
	if len(r.files()) != 0 || r.records("disk") != 0 {
		t.Error("a refused disk left something behind")
	}
	s := secretDisk
	s.Name, s.Size = strings.Repeat("n", 128), 512
	r.create(s)
	r.create(volume.Spec{Project: "default", Name: "largest", Size: 1 << 50, SectorSize: 4096, Encrypted: true})
}

func TestSameNameTwice(t *testing.T) {
	r := newRig(t)
	first := r.create(secretDisk)
	again, err := r.Create(t.Context(), "create vault", secretDisk) // the same request: its answer was lost
	must(t, err)
	if again.ID != first.ID {
		t.Error("a repeated request made another disk")
	}
	_, err = r.Create(t.Context(), "another", secretDisk)
	wantCode(t, err, refusal.Busy)
	if r.records("disk/") != 1 || r.records("dek/") != 1 {
		t.Error("something of the refused disk stayed")
	}
}

// Rule C13: a bad key fails at create, not at attach, and leaves nothing behind.
func TestRuleC13_BadKeyFailsAtCreate(t *testing.T) {
	r := newRig(t)
	_, err := r.keys.CreateKey(t.Context(), "k", "default", keystore.KeySpec{Alias: "mine"})
	must(t, err)
	_, err = r.keys.Disable(t.Context(), "d", "default", "mine")
	must(t, err)
	s := secretDisk
	s.Key = "mine"
	_, err = r.Create(t.Context(), "r", s)
	wantCode(t, err, refusal.KeyForbids)
	s.Key = "nobody"
	_, err = r.Create(t.Context(), "r", s)
	wantCode(t, err, refusal.NotFound)
	s = secretDisk
	s.Project = "elsewhere"
	_, err = r.Create(t.Context(), "r", s)
	wantCode(t, err, refusal.Denied)
	if len(r.files()) != 0 || r.records("disk")+r.records("dek/")+r.records("layer/") != 0 {
		t.Error("a refused disk left something behind")
	}
}

// Rules A14 to A17: a disabled key changes nothing for an attached disk, refuses the next attach, and enabling it restores.
func TestRuleA15_DisabledKeyRefusesAttach(t *testing.T) {
	r := newRig(t)
	_, err := r.keys.CreateKey(t.Context(), "k", "default", keystore.KeySpec{Alias: "mine"})
	must(t, err)
	s := secretDisk
	s.Key = "mine"
	r.create(s)
	a := r.attach("vault")
	_, err = r.keys.Disable(t.Context(), "d", "default", "mine")
	must(t, err)
	_, err = a.Device.WriteAt([]byte("still works"), 0)
	must(t, err)
	asks := leave("vault")
	asks.Stranding = func(key keystore.Info) error { return refusal.New(refusal.Confirm, "say yes", "key %s", key.Alias) }
	if _, err = r.Detach(t.Context(), "detach", asks); refusal.CodeOf(err) != refusal.Confirm || !strings.Contains(err.Error(), "mine") {
		t.Errorf("detach does not ask: %v", err)
	}
	_, err = r.detach("vault")
	must(t, err)
	_, err = r.Attach(t.Context(), "a", spec("vault"))
	wantCode(t, err, refusal.KeyForbids)
	if !strings.Contains(err.Error(), "mine") || !strings.Contains(err.Error(), "Disabled") {
		t.Errorf("the refusal does not name key and state: %v", err)
	}
	if d, err := r.Get(t.Context(), "default", "vault"); err != nil || d.Status != volume.Available {
		t.Errorf("after the refusal: %v %v", d.Status, err)
	}
	_, err = r.keys.Enable(t.Context(), "e", "default", "mine")
	must(t, err)
	got := make([]byte, 11)
	_, err = r.attach("vault").Device.ReadAt(got, 0)
	must(t, err)
	if string(got) != "still works" {
		t.Errorf("read %q", got)
	}
}

// Rule C12: a disk can be deleted without its key.
func TestRuleC12_DeleteWithoutTheKey(t *testing.T) {
	r := newRig(t)
	_, err := r.keys.CreateKey(t.Context(), "k", "default", keystore.KeySpec{Alias: "mine"})
	must(t, err)
	s := secretDisk
	s.Key = "mine"
	r.create(s)
	_, err = r.keys.Disable(t.Context(), "d", "default", "mine")
	must(t, err)
	must(t, r.Delete(t.Context(), "x", "default", "vault"))
	if len(r.files()) != 0 || r.records("dek/") != 0 {
		t.Error("the disk is not gone")
	}
}

// An attach whose release can't be recorded is taken back whole.
func TestUnrecordedReleaseIsTakenBack(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	s := spec("vault")
	s.Released = func(string, *keystore.KeyVersionRef) error { return errors.New("the log is full") }
	if _, err := r.Attach(t.Context(), "a", s); err == nil {
		t.Fatal("a key was released without a record")
	}
	if d, _ := r.Get(t.Context(), "default", "vault"); d.Status != volume.Available || r.records("attachment/") != 0 {
		t.Errorf("status %v, %d attachment records", d.Status, r.records("attachment/"))
	}
	if a := r.attach("vault"); len(a.Warnings) != 0 {
		t.Errorf("warnings: %v", a.Warnings)
	}
}

// What the run before may have lost is told by the attach that succeeds, whatever attaches failed before it.
func TestUnrecordedReleaseKeepsTheWarning(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	r.attach("vault").Abandon()
	r.restart()
	s := spec("vault")
	s.Released = func(string, *keystore.KeyVersionRef) error { return errors.New("the log is full") }
	if _, err := r.Attach(t.Context(), "a", s); err == nil {
		t.Fatal("a key was released without a record")
	}
	if a := r.attach("vault"); len(a.Warnings) != 1 || !strings.Contains(a.Warnings[0], "without a detach") {
		t.Errorf("warnings: %v", a.Warnings)
	}
}

// A disk whose deletion met an error half-way can be deleted again, and nothing else.
func TestHalfDeletedDiskIsNotAttached(t *testing.T) {
	r := newRig(t)
	s := secretDisk
	s.Encrypted = false
	d := r.create(s)
	inTheWay := filepath.Join(filepath.Dir(d.Layers[0].Segments[0]), "data.0001")
	must(t, os.MkdirAll(filepath.Join(inTheWay, "full"), 0o700))
	if err := r.Delete(t.Context(), "d", "default", d.ID); err == nil {
		t.Fatal("deleted all the same")
	}
	must(t, os.RemoveAll(inTheWay))
	_, err := r.Attach(t.Context(), "a", spec(d.ID))
	wantCode(t, err, refusal.Busy)
	_, err = r.Extend(t.Context(), "e", "default", d.ID, 2*d.Size)
	wantCode(t, err, refusal.Busy)
	must(t, r.Delete(t.Context(), "again", "default", d.ID))
	if r.records("disk/") != 0 || len(r.files()) != 0 {
		t.Errorf("%d disks, files %v", r.records("disk/"), r.files())
	}
}

func TestOneAttachmentAtATime(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	r.attach("vault")
	_, err := r.Attach(t.Context(), "b", spec("vault"))
	wantCode(t, err, refusal.Busy)
	wantCode(t, r.Delete(t.Context(), "x", "default", "vault"), refusal.Busy)
	_, err = r.detach("vault")
	must(t, err)
	_, err = r.detach("vault")
	wantCode(t, err, refusal.Busy)
}

// A run that ended without a detach, or whose sync failed, is told of at the next attach.
func TestNextAttachTellsOfLoss(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	crashed := r.attach("vault")
	crashed.Abandon()
	r.restart()
	if left, _, err := r.LeftAttached(t.Context()); err != nil || len(left) != 1 || left[0] != "vault" {
		t.Errorf("left attached: %v %v", left, err)
	}
	s := spec("vault")
	s.ReadOnly = true
	a, err := r.Attach(t.Context(), "ro", s)
	must(t, err)
	if len(a.Warnings) != 1 {
		t.Errorf("read-only after a crash: %v", a.Warnings)
	}
	_, err = r.detach("vault")
	must(t, err)
	a = r.attach("vault") // looking at it read-only has mended nothing
	if len(a.Warnings) != 1 || !strings.Contains(a.Warnings[0], "without a detach") {
		t.Errorf("after a crash: %v", a.Warnings)
	}
	_, err = a.Device.WriteAt([]byte("x"), 0)
	must(t, err)
	r.faults.Hook(func(c pooltest.Call) error {
		if c.Op == pooltest.OpFlush {
			return syscall.EIO
		}
		return nil
	})
	warnings, err := r.detach("vault")
	must(t, err)
	if len(warnings) != 1 {
		t.Errorf("detach after a failed sync: %v", warnings)
	}
	r.faults.Hook(nil)
	r.Close()
	if len(r.failed) != 1 || !strings.Contains(r.failed[0], "vault") {
		t.Errorf("what was told of the failed sync: %q", r.failed)
	}
	r.restart()
	a = r.attach("vault")
	if len(a.Warnings) != 1 || !strings.Contains(a.Warnings[0], "sync failed") {
		t.Errorf("after a failed sync: %v", a.Warnings)
	}
	_, err = r.detach("vault")
	must(t, err)
	if a := r.attach("vault"); len(a.Warnings) != 0 {
		t.Errorf("after a good detach: %v", a.Warnings)
	}
}

func TestExtend(t *testing.T) {
	r := newRig(t)
	s := secretDisk
	s.Size = 1000 * 512 // not whole blocks
	r.create(s)
	a := r.attach("vault")
	last := bytes.Repeat([]byte{7}, 512)
	_, err := a.Device.WriteAt(last, 999*512)
	must(t, err)
	for _, bad := range []int64{0, 999 * 512, 1000*512 + 1, 1<<50 + 512} {
		_, err := r.Extend(t.Context(), "e", "default", "vault", bad)
		wantCode(t, err, refusal.Usage)
	}
	d, err := r.Extend(t.Context(), "e1", "default", "vault", 200*mib)
	must(t, err)
	size, _ := a.Device.Size()
	if d.Size != 200*mib || size != 200*mib {
		t.Errorf("online: %d, device %d", d.Size, size)
	}
	got := make([]byte, 4096)
	_, err = a.Device.ReadAt(got, 999*512)
	must(t, err)
	if !bytes.Equal(got[:512], last) || !bytes.Equal(got[512:], make([]byte, 4096-512)) {
		t.Error("what was past the end is not zeros")
	}
	_, err = a.Device.WriteAt(last, 200*mib-512)
	must(t, err)
	_, err = r.detach("vault")
	must(t, err)
	_, err = r.Extend(t.Context(), "e2", "default", "vault", 300*mib)
	must(t, err)
	r.restart()
	_, err = r.attach("vault").Device.ReadAt(got[:512], 200*mib-512)
	must(t, err)
	if !bytes.Equal(got[:512], last) {
		t.Error("data is gone after an offline extend")
	}
}

// An extend that fails or is cut off half-way leaves the disk as it was, and can be tried again.
func TestExtendCutOff(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	r.faults.Hook(func(c pooltest.Call) error {
		if c.Op == pooltest.OpResize && strings.HasSuffix(c.Volume, "/map") {
			return syscall.ENOSPC
		}
		return nil
	})
	_, err := r.Extend(t.Context(), "e", "default", "vault", 200*mib)
	wantCode(t, err, refusal.Failed)
	r.faults.Hook(nil)
	if d, _ := r.Get(t.Context(), "default", "vault"); d.Size != 4*mib {
		t.Errorf("size %d", d.Size)
	}
	r.restart()
	r.attach("vault") // the data is longer than the catalog says, which is fine
	_, err = r.Extend(t.Context(), "e", "default", "vault", 150*mib)
	must(t, err)
}

// A crash between the steps of create or delete is finished at the next start.
func TestHalfMadeDisksGo(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	r.faults.Hook(func(c pooltest.Call) error {
		if c.Op == pooltest.OpFlush {
			panic("power cut")
		}
		return nil
	})
	func() {
		defer func() { _ = recover() }()
		s := secretDisk
		s.Name = "half"
		_, _ = r.Create(t.Context(), "half", s)
	}()
	if r.records("disk/") != 2 {
		t.Fatal("the test does not leave half a disk")
	}
	r.restart()
	if r.records("disk/") != 1 || r.records("layer/") != 1 || len(r.files()) != 2 {
		t.Errorf("%d disks, %d layers, files %v", r.records("disk/"), r.records("layer/"), r.files())
	}
	r.attach("vault")
}

func TestCheckFindsDamage(t *testing.T) {
	r := newRig(t)
	d := r.create(secretDisk)
	a := r.attach("vault")
	_, err := a.Device.WriteAt(make([]byte, 64<<10), 0)
	must(t, err)
	_, err = r.detach("vault")
	must(t, err)
	where := ""
	problems := func() (list []volume.Problem) {
		t.Helper()
		_, err := r.Check(t.Context(), where, "", func(p volume.Problem) { list = append(list, p) }, func(int64, int64) {})
		must(t, err)
		return list
	}
	if list := problems(); len(list) != 0 {
		t.Fatalf("a sound disk: %+v", list)
	}
	stray := filepath.Join(r.dir, "0190b5a0-0000-7000-8000-000000000001")
	must(t, os.Mkdir(stray, 0o700))
	must(t, os.WriteFile(filepath.Join(stray, "data.0000"), make([]byte, 4096), 0o600))
	if list := problems(); len(list) != 1 || list[0].Severity != "note" {
		t.Errorf("a stray volume: %+v", list)
	}
	where = "default"
	if list := problems(); len(list) != 0 {
		t.Errorf("a project is told of a stray volume: %+v", list)
	}
	must(t, os.RemoveAll(stray))
	flip(t, d.Layers[0].Segments[0][:len(d.Layers[0].Segments[0])-len("data.0000")]+"map.0000", 8192+100)
	if list := problems(); len(list) != 1 || list[0].Severity != "damage" {
		t.Errorf("a flipped map: %+v", list)
	}
	must(t, os.Truncate(d.Layers[0].Segments[0], 100))
	if list := problems(); len(list) == 0 || list[0].Severity != "damage" {
		t.Errorf("a short segment: %+v", list)
	}
	_, err = r.Attach(t.Context(), "a", spec("vault"))
	wantCode(t, err, refusal.Damaged)
	must(t, os.Remove(d.Layers[0].Segments[0]))
	_, err = r.Attach(t.Context(), "a", spec("vault"))
	wantCode(t, err, refusal.Damaged)
}

// What is worked on while a check of all disks comes to it is no damage, whatever the check read of it before.
func TestCheckOfDisksThatAreWorkedOn(t *testing.T) {
	r := newRig(t)
	var disks []volume.Disk
	for _, name := range []string{"a", "b", "c", "d"} {
		s := secretDisk
		s.Name = name
		disks = append(disks, r.create(s))
	}
	slices.SortFunc(disks, func(a, b volume.Disk) int { return strings.Compare(a.ID, b.ID) }) // as the check goes
	grown, gone, busy := disks[1].Name, disks[2].Name, disks[3].Name
	r.attach(busy)
	leaving, leaves, left := make(chan struct{}), make(chan struct{}), make(chan error)
	var once sync.Once
	work := func(int64, int64) {
		once.Do(func() {
			_, err := r.Extend(t.Context(), "grow", "default", grown, 2*secretDisk.Size)
			must(t, err)
			a := r.attach(grown)
			_, err = a.Device.WriteAt(make([]byte, 4096), secretDisk.Size)
			must(t, err)
			must(t, a.Device.Sync())
			must(t, r.Delete(t.Context(), "delete", "default", gone))
			go func() {
				s := leave(busy)
				s.Drain = func(*volume.Attachment) error {
					close(leaving)
					<-leaves
					return nil
				}
				_, err := r.Detach(t.Context(), "leave", s)
				left <- err
			}()
			<-leaving
		})
	}
	var problems []volume.Problem
	found := func(p volume.Problem) { problems = append(problems, p) }
	_, err := r.Check(t.Context(), "default", "", found, work)
	must(t, err)
	if len(problems) != 1 || problems[0].Severity != "note" || problems[0].What != "disk default/"+busy {
		t.Errorf("found %+v", problems)
	}
	_, err = r.Check(t.Context(), "default", busy, found, work)
	wantCode(t, err, refusal.Busy)
	close(leaves)
	must(t, <-left)
}

func flip(t *testing.T, path string, at int64) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	b[at] ^= 1
	must(t, os.WriteFile(path, b, 0o600))
}

func TestEscrow(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	r.create(volume.Spec{Project: "default", Name: "plain", Size: mib, SectorSize: 512})
	released := ""
	sector, keys, err := r.Escrow(t.Context(), "default", "vault", func(k keystore.KeyVersionRef) error { released = k.Alias; return nil })
	must(t, err)
	if sector != 512 || len(keys) != 1 || keys[0].Key.Len() != 64 || released != "evs/default" {
		t.Errorf("escrow: sector %d, %d keys, released %q", sector, len(keys), released)
	}
	volume.DestroyAll(keys)
	_, _, err = r.Escrow(t.Context(), "default", "vault", func(keystore.KeyVersionRef) error { return errors.New("no room in the log") })
	if err == nil {
		t.Error("keys were given out without a record")
	}
	_, _, err = r.Escrow(t.Context(), "default", "plain", nil)
	wantCode(t, err, refusal.Failed)
}

// crampedCatalog is a catalog on a file system that is full as long as the pool holds files.
type crampedCatalog struct {
	catalog.Store
	full func() bool
}

func (f crampedCatalog) Update(ctx context.Context, request string, fn func(catalog.Txn) error) error {
	if f.full() {
		return refusal.New(refusal.Failed, "make room", "no room: %w", syscall.ENOSPC)
	}
	return f.Store.Update(ctx, request, fn)
}

// A commit whose outcome nobody can tell may have made the disk: nothing of it is taken away.
func TestCreateWithAnUnknownOutcome(t *testing.T) {
	r := newRig(t)
	whole := r.catalog
	r.catalog = &dyingCatalog{Store: whole, dies: "create vault"}
	r.restart()
	if _, err := r.Create(t.Context(), "create vault", secretDisk); !errors.Is(err, catalog.ErrUnknownOutcome) {
		t.Fatalf("create: %v", err)
	}
	r.catalog = whole
	r.restart()
	r.attach("vault")
}

// dyingCatalog carries out one request without saying so, and answers nothing after it.
type dyingCatalog struct {
	catalog.Store
	dies string
	dead bool
}

var errDead = errors.New("the catalog has died")

func (d *dyingCatalog) Update(ctx context.Context, request string, fn func(catalog.Txn) error) error {
	if d.dead {
		return errDead
	}
	err := d.Store.Update(ctx, request, fn)
	if d.dead = request == d.dies; d.dead && err == nil {
		err = catalog.ErrUnknownOutcome
	}
	return err
}

func (d *dyingCatalog) Outcome(ctx context.Context, request string) (bool, error) {
	if d.dead {
		return false, errDead
	}
	return d.Store.Outcome(ctx, request)
}

// On a full file system deleting is how people make room: it needs none.
func TestDeleteMakesRoom(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	r.catalog = crampedCatalog{r.catalog, func() bool { return len(r.files()) > 0 }}
	r.restart()
	must(t, r.Delete(t.Context(), "d", "default", "vault"))
	if len(r.files()) != 0 || r.records("disk/")+r.records("dek/")+r.records("layer/") != 0 {
		t.Error("something is left")
	}
}

// A detach that can't make the last writes durable for lack of room is refused, loses nothing, and works with room.
func TestDetachWithoutRoom(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	a := r.attach("vault")
	_, err := a.Device.WriteAt([]byte("last words"), 0)
	must(t, err)
	r.faults.Hook(func(c pooltest.Call) error {
		if c.Op == pooltest.OpWrite && strings.HasSuffix(c.Volume, "/map") {
			return syscall.ENOSPC
		}
		return nil
	})
	_, err = r.detach("vault")
	wantCode(t, err, refusal.Failed)
	r.faults.Hook(nil)
	warnings, err := r.detach("vault")
	must(t, err)
	got := make([]byte, 10)
	_, err = r.attach("vault").Device.ReadAt(got, 0)
	must(t, err)
	if string(got) != "last words" || len(warnings) != 0 {
		t.Errorf("read %q, warnings %v", got, warnings)
	}
}

// A list that meets a disk on its way out leaves it out.
func TestListWhileDisksAreDeleted(t *testing.T) {
	r := newRig(t)
	for i := range 60 {
		s := secretDisk
		s.Name = fmt.Sprint("vault", i)
		r.create(s)
	}
	deleted := make(chan error, 1)
	go func() {
		var errs []error
		for i := range 60 {
			errs = append(errs, r.Delete(t.Context(), fmt.Sprint("d", i), "default", fmt.Sprint("vault", i)))
		}
		deleted <- errors.Join(errs...)
	}()
	for {
		must(t, r.List(t.Context(), "default", true, func(d volume.Disk) error {
			if len(d.Layers) != 1 || len(d.Warnings) != 0 {
				t.Errorf("%+v", d)
			}
			return nil
		}))
		select {
		case err := <-deleted:
			must(t, err)
			return
		default:
		}
	}
}

// An attach for which there are no descriptors says so, and takes no disk for damaged.
func TestAttachWithoutDescriptors(t *testing.T) {
	r := newRig(t)
	r.create(volume.Spec{Project: "default", Name: "plain", Size: mib, SectorSize: 512})
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: limit.Max}))
	_, err := r.Attach(t.Context(), "attach", spec("plain"))
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	wantCode(t, err, refusal.Failed)
	if !errors.Is(err, syscall.EMFILE) {
		t.Error(err)
	}
	r.attach("plain")
}
