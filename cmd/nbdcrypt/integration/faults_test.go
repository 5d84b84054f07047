//go:build integration

package integration

import (
	"errors"
	"path/filepath"
	"syscall"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/integration/faultfs"
	"nbdcrypt/nbd/nbdclient"
)

// recordBytes is how much of a disk one record of the map is about, at most.
const recordBytes = 64 << 20

// ailing is an attached disk in a pool that can be told to fail, with a connection that is there all the time.
type ailing struct {
	*daemon
	fs       *faultfs.FS
	disk     string
	data, mp string // its files, as faults name them
	c        *nbdclient.Client
	base     []byte // what is durable at its beginning
}

// eachAiling runs a test on a fresh disk of every kind, all on one daemon. Their beginning is written and flushed.
func eachAiling(t *testing.T, size string, test func(t *testing.T, a *ailing)) {
	t.Parallel()
	d := newDaemon(t)
	fs := d.breakable(d.pool, faultfs.Options{})
	d.start()
	d.do("grant", "create")
	for _, kind := range disks {
		t.Run(kind.name, func(t *testing.T) {
			layer := filepath.Base(filepath.Dir(d.create(kind.name, size, kind.flags...).Layers[0].Segments[0]))
			a := &ailing{daemon: d, fs: fs, disk: kind.name, data: layer + "/data.0000", mp: layer + "/map.0000",
				c: dial(t, d.attach(kind.name)), base: noise(kind.name, 256<<10)}
			write(t, a.c, a.base, 0)
			check(t, a.c.Flush())
			test(t, a)
			fs.Heal()
			d.do("detach", kind.name)
		})
	}
	d.stop()
	d.start()
	d.checkClean()
}

// What fails below is the right error for the client, of that request alone: the connection lives, and the same request works once
// storage does.
func TestFaultsAreErrnos(t *testing.T) {
	const size = 8192
	eachAiling(t, "1G", func(t *testing.T, a *ailing) {
		data, fresh := noise("fault", size), int64(0)
		overwrite := func() error { return second(a.c.WriteAt(data, 4096)) }
		first := func() error { return second(a.c.WriteAt(data, fresh)) }
		for _, f := range []struct {
			name, file string
			op         faultfs.Op
			errno      syscall.Errno
			do         func() error
			want       syscall.Errno
		}{
			{"write", a.data, faultfs.Write, syscall.EIO, overwrite, syscall.EIO},
			{"write without room", a.data, faultfs.Write, syscall.ENOSPC, overwrite, syscall.ENOSPC},
			{"write over a quota", a.data, faultfs.Write, syscall.EDQUOT, overwrite, syscall.ENOSPC},
			{"first write", a.data, faultfs.Write, syscall.EIO, first, syscall.EIO},
			{"first write without room", a.data, faultfs.Write, syscall.ENOSPC, first, syscall.ENOSPC},
			{"first write, no room in the map", a.mp, faultfs.Allocate, syscall.ENOSPC, first, syscall.ENOSPC},
			{"first write, unreadable map", a.mp, faultfs.Read, syscall.EIO, first, syscall.EIO},
			{"read", a.data, faultfs.Read, syscall.EIO, func() error { return second(a.c.ReadAt(make([]byte, size), 4096)) }, syscall.EIO},
			{"reserve", a.data, faultfs.Allocate, syscall.ENOSPC, func() error { return a.c.Zero(fresh, size, true) }, syscall.ENOSPC},
			{"reserve from a broken disk", a.data, faultfs.Allocate, syscall.EIO, func() error { return a.c.Zero(fresh, size, true) }, syscall.EIO},
			{"flush, no room in the map", a.mp, faultfs.Write, syscall.ENOSPC, func() error { return errors.Join(first(), a.c.Flush()) }, syscall.ENOSPC},
		} {
			fresh += recordBytes // nothing of it is in memory
			hits := a.fs.Inject(faultfs.Fault{Op: f.op, File: f.file, Errno: f.errno, Times: 1})
			if err := f.do(); !errors.Is(err, f.want) {
				t.Errorf("%s: %v, want %v", f.name, err, f.want)
			}
			if hits() != 1 {
				t.Errorf("%s: the fault was met %d times", f.name, hits())
			}
			a.fs.Heal()
			expect(t, a.c, a.base[size+4096:], size+4096)
			if err := f.do(); err != nil {
				t.Errorf("%s: once more: %v", f.name, err)
			}
			check(t, a.c.Flush())
		}
		expect(t, a.c, data, 4096)
	})
}
