//go:build integration

package integration

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A file system survives a detach and a restart, and finds nothing to mend.
func TestFilesystems(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	for _, fs := range []struct{ make, verify []string }{
		{[]string{"mkfs.ext4", "-q"}, []string{"e2fsck", "-f", "-n"}},
		{[]string{"mkfs.xfs", "-q"}, []string{"xfs_repair", "-n"}},
	} {
		for _, kind := range disks {
			t.Run(fs.make[0]+"/"+kind.name, func(t *testing.T) {
				d.create("fs", "320M", kind.flags...)
				var want map[string][sha256.Size]byte
				d.onLoop(t, "fs", func(device string) {
					tool(t, fs.make[0], append(fs.make[1:], device)...)
					mounted(t, device, func(dir string) {
						plantTree(t, dir)
						want = sums(t, dir)
					})
				})
				d.stop()
				d.start()
				d.onLoop(t, "fs", func(device string) {
					tool(t, fs.verify[0], append(fs.verify[1:], device)...)
					mounted(t, device, func(dir string) {
						if got := sums(t, dir); !maps.Equal(got, want) {
							t.Errorf("other files after the detach: %v, not %v", got, want)
						}
					})
				})
				d.do("disk", "delete", "fs", "--yes")
			})
		}
	}
}

// onLoop attaches a disk, shows it as a loop device while use runs, and detaches it.
func (d *daemon) onLoop(t *testing.T, name string, use func(device string)) {
	t.Helper()
	uri := d.attach(name)
	file, release := fuseFile(t, uri)
	device := strings.TrimSpace(tool(t, "losetup", "--find", "--show", "--sector-size", fmt.Sprint(d.show(name).SectorSize), file))
	detach := sync.OnceFunc(func() { tool(t, "losetup", "--detach", device) })
	t.Cleanup(detach)
	use(device)
	detach()
	release()
	d.do("detach", name)
	waitFor(t, "a mount or a loop device is left behind", func() bool { // for a moment programs of other tests may hold them
		return !strings.Contains(string(readFile(t, "/proc/self/mounts"))+tool(t, "losetup", "--list"), filepath.Dir(file))
	})
}

// fuseFile shows an export as a file until release is called, or the test ends.
func fuseFile(t *testing.T, uri string) (path string, release func()) {
	t.Helper()
	dir := tempDir(t)
	path = filepath.Join(dir, "disk")
	cmd := exec.Command("nbdfuse", path, uri)
	cmd.Stderr = os.Stderr
	check(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	release = sync.OnceFunc(func() {
		unmounts(t, "fusermount3", "-u", dir)
		select {
		case <-ended:
		case <-time.After(patience):
			t.Error("nbdfuse does not end")
			_ = cmd.Process.Kill()
			<-ended
			_ = exec.Command("umount", "-l", dir).Run()
		}
	})
	t.Cleanup(release)
	waitFor(t, "nbdfuse shows no file", func() bool {
		info, err := os.Stat(path)
		return err == nil && info.Size() > 0
	})
	return path, release
}

// mounted mounts a device while use runs.
func mounted(t *testing.T, device string, use func(dir string)) {
	t.Helper()
	dir := tempDir(t)
	tool(t, "mount", device, dir)
	unmount := sync.OnceFunc(func() { unmounts(t, "umount", dir) })
	t.Cleanup(unmount)
	use(dir)
	unmount()
}

// unmounts unmounts what is last among args, unless that has happened. A test that runs beside this one may start a program just now,
// which for a moment has all files of this process open.
func unmounts(t *testing.T, name string, args ...string) {
	t.Helper()
	at := " " + args[len(args)-1] + " "
	waitFor(t, name+" does not unmount"+at, func() bool {
		return !strings.Contains(string(readFile(t, "/proc/self/mounts")), at) || exec.Command(name, args...).Run() == nil
	})
}

// plantTree writes files as people have them: small and large, sparse, renamed, linked, removed.
func plantTree(t *testing.T, dir string) {
	t.Helper()
	for i := range 200 {
		sub := filepath.Join(dir, fmt.Sprintf("d%d", i%7), fmt.Sprintf("e%d", i%3))
		check(t, os.MkdirAll(sub, 0o755))
		writeFile(t, filepath.Join(sub, fmt.Sprint("f", i)), noise(fmt.Sprint("tree", i), i*i*7))
	}
	writeFile(t, filepath.Join(dir, "large"), noise("large", 40<<20))
	check(t, os.Truncate(filepath.Join(dir, "large"), 60<<20))
	check(t, os.Rename(filepath.Join(dir, "d1"), filepath.Join(dir, "renamed")))
	check(t, os.RemoveAll(filepath.Join(dir, "d2")))
	check(t, os.Symlink("large", filepath.Join(dir, "link")))
	check(t, exec.Command("sync", "-f", dir).Run())
}

// sums holds the checksum of every file of a tree.
func sums(t *testing.T, dir string) map[string][sha256.Size]byte {
	t.Helper()
	all := map[string][sha256.Size]byte{}
	for _, path := range files(t, dir) {
		all[strings.TrimPrefix(path, dir)] = sha256.Sum256(readFile(t, path))
	}
	if len(all) < 100 {
		t.Fatalf("only %d files", len(all))
	}
	return all
}
