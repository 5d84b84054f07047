//go:build integration

package integration

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/integration/faultfs"
	"nbdcrypt/pkg/durable"
)

// breakable makes dir a file system that can be told to fail, with what is in the folder that is returned. A daemon in it must be gone
// before it.
func (d *daemon) breakable(dir string, o faultfs.Options) *faultfs.FS {
	d.t.Helper()
	below := tempDir(d.t)
	check(d.t, errors.Join(os.Chmod(below, 0o700), os.MkdirAll(dir, 0o700)))
	f, err := faultfs.Mount(below, dir, o)
	check(d.t, err)
	d.t.Cleanup(func() {
		f.Heal()
		d.kill()
		check(d.t, f.Close())
	})
	return f
}

// What the fault tests rely on: the file system stores, fails as it is told, and recovers.
func TestFaultFS(t *testing.T) {
	d := newDaemon(t)
	f := d.breakable(d.pool, faultfs.Options{})
	path := filepath.Join(d.pool, "file")
	file, err := os.Create(path)
	check(t, err)
	defer file.Close()
	data := noise("file", 10_000)
	_, err = file.Write(data)
	check(t, err)

	other := path + "2"
	for op, do := range map[faultfs.Op]func() error{
		faultfs.Open:     func() error { return second(os.ReadFile(path)) },
		faultfs.Read:     func() error { return second(file.ReadAt(make([]byte, 10), 0)) },
		faultfs.Write:    func() error { return second(file.WriteAt(data[:10], 0)) },
		faultfs.Sync:     func() error { return durable.Dir(d.pool) },
		faultfs.Allocate: func() error { return syscall.Fallocate(int(file.Fd()), 0, 0, 1<<20) },
		faultfs.Truncate: func() error { return file.Truncate(int64(len(data))) },
		faultfs.Create:   func() error { _ = os.Remove(other); return os.WriteFile(other, nil, 0o600) },
		faultfs.Rename:   func() error { writeFile(t, other, nil); return os.Rename(other, path+"3") },
		faultfs.Remove:   func() error { writeFile(t, other, nil); return os.Remove(other) },
	} {
		hits := f.Inject(faultfs.Fault{Op: op, Errno: syscall.EDQUOT, Skip: 1, Times: 1})
		for i, want := range []error{nil, syscall.EDQUOT, nil} {
			if err := do(); !errors.Is(err, want) || (err == nil) != (want == nil) {
				t.Errorf("%s number %d: %v, want %v", op, i, err, want)
			}
		}
		if hits() != 1 {
			t.Errorf("%s: %d hits", op, hits())
		}
		f.Heal()
	}

	check(t, file.Truncate(int64(len(data)))) // allocating made it longer
	f.Inject(faultfs.Fault{Op: faultfs.Write, File: "file", Lost: true, Times: 1})
	f.Inject(faultfs.Fault{Op: faultfs.Write, File: "file", Short: true})
	f.Inject(faultfs.Fault{Op: faultfs.Read, File: "file", Short: true})
	f.Inject(faultfs.Fault{Op: faultfs.Sync, File: "fil?", Errno: syscall.EIO})
	_, err = file.WriteAt(make([]byte, len(data)), 0)
	check(t, err)
	if got := readFile(t, path); !bytes.Equal(got, data) {
		t.Error("what should be lost is there, or short reads don't add up")
	}
	data = noise("other", len(data))
	_, err = file.WriteAt(data, 0)
	check(t, err)
	if err := file.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("sync: %v", err)
	}
	f.Heal()
	if got := readFile(t, path); !bytes.Equal(got, data) {
		t.Error("short writes don't add up")
	}
}

func second[T any](_ T, err error) error { return err }
