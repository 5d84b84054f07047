//go:build integration

package integration

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nbdcrypt/pkg/control"
)

// wellKept starts a daemon with keys, disks and data, and stops it.
func wellKept(t *testing.T) *daemon {
	t.Helper()
	d := startDaemon(t)
	d.do("key", "create", "mine")
	d.create("vol", "4M", "--key=mine")
	d.create("other", "4M", "--plain")
	c := dial(t, d.attach("vol"))
	for i := range 4 { // several generations of the map
		write(t, c, noise("vol", 1<<20)[i<<18:][:1<<18], 777+int64(i)<<18)
		check(t, c.Flush())
	}
	d.stop()
	return d
}

// isWhole sees that all of wellKept is there.
func (d *daemon) isWhole() {
	d.t.Helper()
	if got := get[[]control.Disk](d, "disk", "list"); len(got) != 2 {
		d.t.Errorf("disks: %+v", got)
	}
	if got := get[[]control.Key](d, "key", "list"); len(got) != 2 {
		d.t.Errorf("keys: %+v", got)
	}
	expect(d.t, dial(d.t, d.attach("vol")), noise("vol", 1<<20), 777)
}

// A root key file that is not the right one is refused, and so is what the store's files should not be; with the right ones
// back all is there.
func TestDamagedKeyFiles(t *testing.T) {
	t.Parallel()
	d := wellKept(t)
	stranger := wellKept(t)
	for _, bad := range []struct {
		name, file string
		code       int
		says       string
		harm       func(b []byte) []byte
	}{
		{"missing root key", d.root, 10, "missing", nil},
		{"another store's root key", d.root, 10, "store", func([]byte) []byte { return readFile(t, stranger.root) }},
		{"truncated root key", d.root, 8, "root key file", func(b []byte) []byte { return b[:len(b)/2] }},
		{"empty root key", d.root, 8, "root key file", func([]byte) []byte { return nil }},
		{"flipped root key", d.root, 8, "root key file", flip(60)},
		{"flipped sum of the root key", d.root, 8, "root key file", func(b []byte) []byte { return flip(len(b) - 3)(b) }},
		{"root key of version 2", d.root, 8, "version 2", version("nbdcrypt-root-key", 2)},
		{"store of version 3", d.state + "/store", 8, "version 3", version("nbdcrypt-store", 3)},
		{"missing store", d.state + "/store", 8, "store", nil},
		{"truncated store", d.state + "/store", 8, "store", func(b []byte) []byte { return b[:len(b)-5] }},
		{"flipped store", d.state + "/store", 8, "store", flip(30)},
		{"missing erase keys", d.state + "/erase", 8, "erase", nil},
		{"erase keys without their header", d.state + "/erase", 8, "erase", func(b []byte) []byte { clear(b[:8192]); return b }},
		{"missing audit log", d.state + "/audit.log", 8, "audit", nil},
		{"flipped audit log", d.state + "/audit.log", 8, "audit", flip(500)},
		{"audit log cut short", d.state + "/audit.log", 8, "audit", func(b []byte) []byte {
			return b[:bytes.IndexByte(b, '\n')+1]
		}},
	} {
		good := readFile(t, bad.file)
		if bad.harm == nil {
			check(t, os.Remove(bad.file))
		} else {
			writeFile(t, bad.file, bad.harm(bytes.Clone(good)))
		}
		before := tree(t, d.dir)
		said := d.refusesToStart(bad.code)
		if !strings.Contains(said, bad.says) {
			t.Errorf("%s: the refusal does not say %q: %s", bad.name, bad.says, said)
		}
		// The catalog is whole, and may have been opened before the damage was met.
		files := slices.DeleteFunc(changed(before, tree(t, d.dir)), func(path string) bool {
			return strings.HasPrefix(path, d.state+"/catalog")
		})
		if len(files) != 0 {
			t.Errorf("%s: %q changed", bad.name, files)
		}
		writeFile(t, bad.file, good)
	}
	d.start()
	d.isWhole()
}

// Damage to one erase key is damage to that CMK alone: one copy of two is enough, and without both the disks of other keys go
// on. `check` tells, and with the file restored all is there.
func TestDamagedEraseKeys(t *testing.T) {
	t.Parallel()
	d := wellKept(t)
	path := d.state + "/erase"
	good := readFile(t, path)
	// Pairs of 8192 bytes: the header's, evs/default's, mine's (docs/keystore-format.md).
	for _, at := range []int{2*8192 + 30, 2*8192 + 4096 + 30} {
		writeFile(t, path, flip(at)(bytes.Clone(good)))
		d.start()
		d.isWhole()
		if said := execute(t, d.command("check")); !strings.Contains(said.stdout, "erase") {
			t.Errorf("check ended with %d and says nothing of the erase key: %s", said.code, said.stdout)
		}
		d.stop()
	}
	for name, bad := range map[string][]byte{"flipped": flip(2*8192 + 30)(flip(2*8192 + 4096 + 30)(bytes.Clone(good))),
		"cut in the pair": good[:2*8192+100], "cut between pairs": good[:2*8192]} {
		writeFile(t, path, bad)
		d.start()
		d.refused(8, "attach", "vol")
		d.refused(8, "check")
		d.create("fresh", "4M", "--encrypted")
		write(t, dial(t, d.attach("fresh")), noise(name, 4096), 0)
		d.do("detach", "fresh")
		d.do("disk", "delete", "fresh", "--yes")
		d.stop()
	}
	writeFile(t, path, good)
	d.start()
	d.isWhole()
	d.checkClean()
}

// flip turns one bit.
func flip(at int) func([]byte) []byte {
	return func(b []byte) []byte { b[at] ^= 4; return b }
}

// version makes a text file one of version 2.
func version(kind string, later int) func([]byte) []byte {
	return func(b []byte) []byte {
		return bytes.Replace(b, []byte(kind+" 1"), fmt.Appendf(nil, "%s %d", kind, later), 1)
	}
}

// tree holds the checksum of every file of the daemon's directories, but for those that name who has them now.
func tree(t *testing.T, dir string) map[string][sha256.Size]byte {
	t.Helper()
	all := map[string][sha256.Size]byte{}
	for _, path := range files(t, dir+"/state", dir+"/pool", dir+"/key", dir+"/run") {
		if base := filepath.Base(path); base != "lock" && base != ".lock" {
			all[path] = sha256.Sum256(readFile(t, path))
		}
	}
	return all
}

// changed names the files that are gone or hold something else. Copies that a refused start leaves beside them are no harm.
func changed(before, after map[string][sha256.Size]byte) (paths []string) {
	for path, sum := range before {
		if after[path] != sum {
			paths = append(paths, path)
		}
	}
	return paths
}
