//go:build integration

package integration

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/integration/faultfs"
	"nbdcrypt/nbd/nbdclient"
	"nbdcrypt/pkg/control"
)

// A failed sync is final until the disk is detached: nobody knows what the cache has dropped. Reads go on, other disks do, the detach and the next
// attach say it, and what was flushed before is there, even where the storage kept nothing of what came after.
func TestFaultFailedSyncIsSticky(t *testing.T) {
	eachAiling(t, "64M", func(t *testing.T, a *ailing) {
		for i, f := range []struct {
			name  string
			fault faultfs.Fault
			do    func(c *nbdclient.Client) error
		}{
			{"flush", faultfs.Fault{Op: faultfs.Sync, File: a.data, Errno: syscall.EIO}, (*nbdclient.Client).Flush},
			{"flush without room", faultfs.Fault{Op: faultfs.Sync, File: a.data, Errno: syscall.ENOSPC}, (*nbdclient.Client).Flush},
			{"flush of the map", faultfs.Fault{Op: faultfs.Sync, File: a.mp, Errno: syscall.EIO}, (*nbdclient.Client).Flush},
			{"write of the map", faultfs.Fault{Op: faultfs.Write, File: a.mp, Errno: syscall.EIO}, (*nbdclient.Client).Flush},
			{"FUA", faultfs.Fault{Op: faultfs.Sync, File: a.data, Errno: syscall.EIO}, func(c *nbdclient.Client) error {
				return second(c.WriteAtFUA(noise("FUA", 4096), 0))
			}},
		} {
			other := a.create("sound", "4M", "--encrypted").Name
			sound := dial(t, a.attach(other))

			if f.fault.Op == faultfs.Sync { // what can't be synced is not there
				a.fs.Inject(faultfs.Fault{Op: faultfs.Write, File: f.fault.File, Lost: true})
			}
			hits := a.fs.Inject(f.fault)
			fresh := int64(8+i) << 20
			write(t, a.c, noise("overwritten", 16<<10), 8192)
			write(t, a.c, noise("new", 16<<10), fresh)
			a.isFinal(t, f.name, f.do)
			if hits() != 1 {
				t.Errorf("%s: the fault was met %d times", f.name, hits())
			}
			a.fs.Heal()
			a.isFinal(t, f.name+", then sound storage", (*nbdclient.Client).Flush)
			write(t, sound, a.base, 0)
			check(t, sound.Flush())
			a.do("detach", other)
			a.do("disk", "delete", other, "--yes")

			if r := execute(t, a.command("detach", a.disk)); r.code != 0 || !strings.Contains(r.stderr, "may be lost") {
				t.Errorf("%s: the detach ended with %d: %s", f.name, r.code, r.stderr)
			}
			again := get[control.Attached](a.daemon, "attach", a.disk)
			if !again.Unclean || !strings.Contains(strings.Join(again.Warnings, "\n"), "may be lost") {
				t.Errorf("%s: the attach says %+v", f.name, again)
			}
			a.c = dial(t, again.URI)
			expect(t, a.c, make([]byte, 16<<10), fresh)
			if f.fault.File == a.data {
				expect(t, a.c, a.base, 0)
			}
			write(t, a.c, a.base, 0)
			write(t, a.c, a.base, fresh)
			a.do("detach", a.disk)
			if again = get[control.Attached](a.daemon, "attach", a.disk); again.Unclean || len(again.Warnings) > 0 {
				t.Errorf("%s: after a good detach the attach says %+v", f.name, again)
			}
			a.c = dial(t, again.URI)
		}
	})
}

// isFinal does what fails, and sees that nothing more is written, and that reads are answered.
func (a *ailing) isFinal(t *testing.T, what string, do func(*nbdclient.Client) error) {
	t.Helper()
	for name, change := range map[string]func() error{
		"a flush": a.c.Flush, "a trim": func() error { return a.c.Trim(1<<20, 1<<20) }, "zeros": func() error { return a.c.Zero(1<<20, 1<<20, true) },
		"a write": func() error { return second(a.c.WriteAt(a.base[:4096], 0)) }, "FUA": func() error { return second(a.c.WriteAtFUA(a.base[:4096], 0)) },
	} {
		if err := do(a.c); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %v, not EIO", what, err)
		}
		if err := change(); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: then %s: %v, not EIO", what, name, err)
		}
	}
	expect(t, a.c, a.base[:8192], 0)
	if e := a.refused(1, "disk", "extend", a.disk, "--size=128M"); !strings.Contains(e.Message, "sync failed") {
		t.Errorf("%s: extending is refused with %+v", what, e)
	}
}
