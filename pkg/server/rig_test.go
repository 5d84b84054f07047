package server_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/catalog/catalogtest"
	"nbdcrypt/pkg/clock"
	"nbdcrypt/pkg/pool/pooltest"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/server"
	"nbdcrypt/pkg/volume"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// rig is servers over real disks and a real key store, in memory, whose catalog and pool hang on one cable.
type rig struct {
	t       testing.TB
	power   *pooltest.Power
	catalog catalog.Store
	ask     func() error // before every commit, nil for nothing
	unknown *catalogtest.Unknown
	root    *keystore.Root
	keys    *keystore.Store
	volumes *volume.Service
	lives   int
	*server.Service
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, power: pooltest.NewPower()}
	r.power.Strict()
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "state"), 0o700))
	var err error
	r.root, err = keystore.OpenRoot(filepath.Join(dir, "root.key"), filepath.Join(dir, "state"))
	must(t, err)
	t.Cleanup(r.root.Close)
	r.unknown = catalogtest.NewUnknown(catalog.Memory())
	r.catalog = keystore.Seal(catalogtest.Asking(r.unknown, func() error {
		if r.ask != nil {
			if err := r.ask(); err != nil {
				return err
			}
		}
		return r.power.Step()
	}), r.root)
	r.keys, err = keystore.Open(t.Context(), keystore.Config{Catalog: r.catalog, Root: r.root, Region: "local", Clock: clock.System{}})
	must(t, err)
	t.Cleanup(func() { _ = r.keys.Close() })
	_, _, err = r.keys.Grant(t.Context(), "grant", "default", "root")
	must(t, err)
	r.start()
	return r
}

// start opens disks and servers as a new run of the daemon does.
func (r *rig) start() {
	r.t.Helper()
	r.open()
	if bad := append(r.volumes.Unreadable(), r.Unreadable()...); len(bad) > 0 {
		r.t.Errorf("a start could not read %v", bad)
	}
}

func (r *rig) open() {
	r.t.Helper()
	must(r.t, r.tryOpen())
}

func (r *rig) tryOpen() (err error) {
	if r.volumes != nil {
		r.volumes.Close()
	}
	r.lives++
	volumes, err := volume.Open(r.t.Context(), volume.Config{Catalog: r.catalog, Keys: r.keys, Pool: r.power, Clock: clock.System{}, Held: server.Held,
		Log: slog.New(slog.DiscardHandler), Host: "here", Instance: fmt.Sprint(r.lives)})
	if err != nil {
		return err
	}
	r.volumes = volumes
	servers, err := server.Open(r.t.Context(), server.Config{Catalog: r.catalog, Volumes: r.volumes, Keys: r.keys, Clock: clock.System{}, Log: slog.New(slog.DiscardHandler)})
	if err == nil {
		r.Service = servers
	}
	return err
}

// again starts after a cut of the power, or a kill: what was not flushed is lost, or some of it, or nothing.
func (r *rig) again(n int) {
	r.t.Helper()
	switch n % 3 {
	case 0:
		r.power.Restart(nil)
	case 1:
		r.power.Restart(rand.New(rand.NewPCG(1, uint64(n))))
	default:
		r.power.Resume()
	}
	r.start()
}

func (r *rig) key(alias string) keystore.Info {
	r.t.Helper()
	info, err := r.keys.CreateKey(r.t.Context(), "key "+alias, "default", keystore.KeySpec{Alias: alias, Origin: keystore.OriginGenerated})
	must(r.t, err)
	return info
}

// image makes an image of a mebibyte of one byte.
func (r *rig) image(name, key string, b byte) volume.Point {
	r.t.Helper()
	p, err := r.volumes.FillImage(r.t.Context(), "import "+name, volume.ImageSpec{Project: "default", Name: name, Size: mib, SectorSize: 512, Encrypted: key != "", Key: key},
		func(w *volume.ImageWriter) (int64, error) {
			_, err := w.WriteAt(bytes.Repeat([]byte{b}, mib), 0)
			return mib, err
		})
	must(r.t, err)
	return p
}

// golden is a rig with the keys mine and other, and the images golden, under mine, and open, which is plain.
func golden(t testing.TB) *rig {
	t.Helper()
	r := newRig(t)
	r.key("mine")
	r.key("other")
	r.image("golden", "mine", 'g')
	r.image("open", "", 'o')
	return r
}

// ofGolden is a server with a plain data disk and one under the key other.
func ofGolden(name string) server.Spec {
	return server.Spec{Project: "default", Name: name, Image: "golden", AsImage: true,
		Data: []server.DiskSpec{{Size: 2 * mib, SectorSize: 4096}, {Size: 3 * mib, SectorSize: 512, Encrypted: true, Key: "other"}}}
}

func (r *rig) create(spec server.Spec) server.Server {
	r.t.Helper()
	v, err := r.Create(r.t.Context(), "create "+spec.Name[:min(20, len(spec.Name))], spec, volume.Work{})
	must(r.t, err)
	return v
}

func (r *rig) disk(ref string) volume.Disk {
	r.t.Helper()
	d, err := r.volumes.Get(r.t.Context(), "default", ref)
	must(r.t, err)
	return d
}

// with attaches a disk for as long as fn runs.
func (r *rig) with(disk string, fn func(a *volume.Attachment)) {
	r.t.Helper()
	a, err := r.volumes.Attach(r.t.Context(), "attach", volume.AttachSpec{Project: "default", Disk: disk, By: "root",
		Released: func(string, *keystore.KeyVersionRef) error { return nil }})
	must(r.t, err)
	fn(a)
	_, err = r.volumes.Detach(r.t.Context(), "detach", volume.DetachSpec{Project: "default", Disk: disk, Drain: func(*volume.Attachment) error { return nil }})
	must(r.t, err)
}

// holds sees which byte a disk holds throughout its first mebibyte.
func (r *rig) holds(disk string, b byte) {
	r.t.Helper()
	r.with(disk, func(a *volume.Attachment) {
		got := make([]byte, mib)
		_, err := a.Device.ReadAt(got, 0)
		must(r.t, err)
		if !bytes.Equal(got, bytes.Repeat([]byte{b}, mib)) {
			r.t.Errorf("disk %s holds %q..., want %q", disk, got[:4], b)
		}
	})
}

// names are the keys of the catalog under a prefix.
func (r *rig) names(prefix string) (list []string) {
	r.t.Helper()
	must(r.t, r.catalog.View(r.t.Context(), func(c catalog.Reader) error {
		list = nil
		return catalog.EachName(c, prefix, func(key string) error { list = append(list, key); return nil })
	}))
	return list
}

// ours are the kinds of records of this package and those of what it makes.
var ours = []string{"server", "disk", "scaling", "image-config/", "config-group/", "layer/", "dek/", "ref/", "doomed/", "making/", "image", "snapshot", "point-of/", "trim-deks/", "attachment/"}

// state is everything there is, by name: of records and in the pool.
func (r *rig) state() string {
	r.t.Helper()
	var all []string
	for _, prefix := range ours {
		all = append(all, r.names(prefix)...)
	}
	files, err := r.power.List(r.t.Context())
	must(r.t, err)
	slices.Sort(files)
	all = append(all, files...)
	return strings.Join(all, "\n")
}

func (r *rig) serverNames() (names []string) {
	r.t.Helper()
	must(r.t, r.List(r.t.Context(), "default", func(v server.Server) error {
		names = append(names, v.Name)
		if v.Status != server.Stopped {
			r.t.Errorf("server %s is %s", v.Name, v.Status)
		}
		return nil
	}))
	return names
}

// whole sees that every server has its disks, every disk has a server or nobody, and that indexes and records say the same.
func (r *rig) whole() {
	r.t.Helper()
	disks, found := map[string]bool{}, 0
	must(r.t, r.volumes.List(r.t.Context(), "default", false, func(d volume.Disk) error {
		disks[d.ID] = true
		if d.Status != volume.Available {
			r.t.Errorf("disk %s is %s", d.Name, d.Status)
		}
		return nil
	}))
	for _, name := range r.serverNames() {
		v, err := r.Get(r.t.Context(), "default", name)
		must(r.t, err)
		for _, d := range v.Disks {
			of, role, err := r.OfDisk(r.t.Context(), d.ID)
			if !disks[d.ID.String()] || err != nil || of == nil || of.ID != v.ID || role != d.Role {
				r.t.Errorf("disk %s of server %s: there %v, of %+v, role %s, %v", d.Name, name, disks[d.ID.String()], of, role, err)
			}
			found++
		}
	}
	if n := len(r.names("disk-server/")); n != found {
		r.t.Errorf("%d disks are somebody's, of %d that servers have", n, found)
	}
	if n, m := len(r.names("server/")), len(r.serverNames()); n != m {
		r.t.Errorf("%d servers with %d names", n, m)
	}
	if found := r.check("", false); len(found) > 0 {
		r.t.Errorf("check finds %v", found)
	}
}

// check is what a check finds in servers, and with all in disks and images too.
func (r *rig) check(project string, all bool) (found []string) {
	r.t.Helper()
	tell := func(p volume.Problem) {
		if p.Severity == "damage" {
			found = append(found, p.What+" "+p.Where+": "+p.Problem)
		}
		if p.Next == "" {
			r.t.Errorf("no way out: %+v", p)
		}
	}
	must(r.t, r.Check(r.t.Context(), project, tell))
	if all {
		_, err := r.volumes.Check(r.t.Context(), project, "", tell, func(int64, int64) {})
		must(r.t, err)
	}
	return found
}

// empty deletes all there is, and sees that nothing is left, in the pool neither.
func (r *rig) empty() {
	r.t.Helper()
	ctx := r.t.Context()
	for _, g := range r.groupNames() {
		_, err := r.DeleteGroup(ctx, "delete", "default", g, nil)
		must(r.t, err)
	}
	for _, c := range r.configNames() {
		_, err := r.DeleteConfig(ctx, "delete", "default", c)
		must(r.t, err)
	}
	for _, v := range r.serverNames() {
		must(r.t, r.Delete(ctx, "delete", "default", v, false))
	}
	var disks, images []string
	must(r.t, r.volumes.List(ctx, "default", false, func(d volume.Disk) error { disks = append(disks, d.ID); return nil }))
	for _, id := range disks {
		must(r.t, r.volumes.Delete(ctx, "delete "+id, "default", id))
	}
	must(r.t, r.volumes.Points(ctx, volume.ImageKind, "default", "", func(p volume.Point) error { images = append(images, p.ID); return nil }))
	for _, id := range images {
		_, err := r.volumes.DeleteImage(ctx, "delete "+id, "default", id)
		must(r.t, err)
	}
	if left := r.state(); left != "" {
		r.t.Errorf("left behind:\n%s", left)
	}
}

func (r *rig) groupNames() (names []string) {
	r.t.Helper()
	must(r.t, r.Groups(r.t.Context(), "default", func(g server.Group) error { names = append(names, g.Name); return nil }))
	return names
}

func (r *rig) configNames() (names []string) {
	r.t.Helper()
	must(r.t, r.Configs(r.t.Context(), "default", func(c server.ScalingConfig) error { names = append(names, c.Name); return nil }))
	return names
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantCode sees that a refusal has a code and a way out, and says what it is about.
func wantCode(t testing.TB, err error, code refusal.Code, says ...string) {
	t.Helper()
	if refusal.CodeOf(err) != code {
		t.Errorf("code %d, want %d: %v", refusal.CodeOf(err), code, err)
		return
	}
	if err != nil && refusal.From(err).Hint == "" {
		t.Errorf("no hint: %v", err)
	}
	for _, s := range says {
		if err != nil && !strings.Contains(err.Error(), s) {
			t.Errorf("%q does not say %q", err, s)
		}
	}
}
