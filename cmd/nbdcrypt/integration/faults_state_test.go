//go:build integration

package integration

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/integration/faultfs"
	"nbdcrypt/pkg/control"
)

// Where the catalog's or the audit log's storage fails, what needs it is refused: commands that change something, or those that release a key. Attached
// disks go on, and after a start on sound storage every command that was acknowledged is there, and the disks are whole.
func TestFaultCatalogAndAuditLog(t *testing.T) {
	t.Parallel()
	for _, f := range []struct {
		name    string
		fault   faultfs.Fault
		refused string // what is
		lasts   bool   // until the next start
	}{
		{"commit", faultfs.Fault{Op: faultfs.Sync, File: "catalog/*", Errno: syscall.EIO}, "disk create", true},
		{"record", faultfs.Fault{Op: faultfs.Write, File: "audit.log", Errno: syscall.EIO}, "attach", false},
		{"sync of a record", faultfs.Fault{Op: faultfs.Sync, File: "audit.log", Errno: syscall.EIO}, "attach", true},
	} {
		t.Run(f.name, func(t *testing.T) {
			d := newDaemon(t)
			fs := d.breakable(d.state, faultfs.Options{Cached: true}) // the catalog maps files
			d.start()
			d.do("grant", "create")
			d.create("vol", "8M", "--encrypted")
			d.create("other", "8M", "--encrypted")
			c := dial(t, d.attach("vol"))
			acknowledged := []string{"other", "vol"}
			create := func(name string) (code int) {
				r := execute(t, d.command("disk", "create", name, "--size=4M", "--encrypted"))
				if r.code == 0 {
					acknowledged = append(acknowledged, name)
				}
				return r.code
			}
			attach := func(string) int { return execute(t, d.command("attach", "other")).code }
			try := map[string]func(string) int{"disk create": create, "attach": attach}[f.refused]

			hits := fs.Inject(f.fault)
			for i := range 5 {
				if code := try(fmt.Sprint("during", i)); code != 1 {
					t.Errorf("try %d ended with %d", i, code)
				}
			}
			if hits() == 0 {
				t.Error("the fault was not met")
			}
			create("beside")
			write(t, c, noise("during", 64<<10), 0)
			check(t, c.Flush())
			fs.Heal()
			expect(t, c, noise("during", 64<<10), 0)
			if code := try("after"); (code != 0) != f.lasts {
				t.Errorf("with sound storage it ends with %d", code)
			}

			d.kill()
			d.start()
			d.do("audit", "verify")
			expect(t, dial(t, d.attach("vol")), noise("during", 64<<10), 0)
			create("then")
			var names []string
			for _, disk := range get[[]control.Disk](d, "disk", "list") {
				names = append(names, disk.Name)
			}
			for _, name := range acknowledged {
				if !slices.Contains(names, name) {
					t.Errorf("disk %s was acknowledged and is not there: %q", name, names)
				}
			}
			d.do("check")
		})
	}
}

// A disk that can't be made leaves nothing behind, and can be made when storage works again.
func TestFaultCreate(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	fs := d.breakable(d.pool, faultfs.Options{})
	d.start()
	d.do("grant", "create")
	for i, fault := range []faultfs.Fault{
		{Op: faultfs.Create, Errno: syscall.ENOSPC}, {Op: faultfs.Create, Errno: syscall.EIO, Skip: 2}, {Op: faultfs.Truncate, Errno: syscall.EFBIG},
		{Op: faultfs.Sync, Errno: syscall.EIO}, {Op: faultfs.Sync, Errno: syscall.EIO, Skip: 3}, {Op: faultfs.Write, Errno: syscall.EIO},
		{Op: faultfs.Open, Errno: syscall.EMFILE},
	} {
		name := fmt.Sprint("disk", i)
		hits := fs.Inject(fault)
		if e := d.refused(1, "disk", "create", name, "--size=4M", "--encrypted"); !strings.Contains(e.Message, fault.Errno.Error()) {
			t.Errorf("%v: %+v", fault, e)
		}
		if hits() == 0 {
			t.Errorf("%v was not met", fault)
		}
		fs.Heal()
		// Where even taking it back failed, it is there half-made, and can be deleted.
		if r := execute(t, d.command("disk", "delete", name, "--yes")); r.code != 0 && r.code != 3 {
			t.Errorf("%v: deleting what is left ended with %d: %s", fault, r.code, r.stderr)
		}
		d.checkClean()
		if left, err := filepath.Glob(d.pool + "/*/*"); err != nil || len(left) > 0 {
			t.Errorf("%v: left behind: %q %v", fault, left, err)
		}
		d.create(name, "4M", "--encrypted")
		d.do("disk", "delete", name, "--yes")
	}
}

// A disk that can't be read at its attach is refused with the reason, and not held for damaged afterwards.
func TestFaultAttach(t *testing.T) {
	eachAiling(t, "4M", func(t *testing.T, a *ailing) {
		a.do("detach", a.disk)
		for _, fault := range []faultfs.Fault{
			{Op: faultfs.Open, File: a.data, Errno: syscall.EIO}, {Op: faultfs.Read, File: a.mp, Errno: syscall.EIO}, {Op: faultfs.Sync, File: a.mp, Errno: syscall.EIO},
		} {
			a.fs.Inject(fault)
			if e := a.refused(1, "attach", a.disk); !strings.Contains(e.Message, "input/output error") {
				t.Errorf("%v: %+v", fault, e)
			}
			a.fs.Heal()
			a.c = dial(t, a.attach(a.disk))
			expect(t, a.c, a.base, 0)
			a.do("detach", a.disk)
		}
		a.attach(a.disk)
	})
}
