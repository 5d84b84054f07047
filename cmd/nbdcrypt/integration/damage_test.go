//go:build integration

package integration

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"nbdcrypt/nbd/nbdclient"
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
		{"root key of version 2", d.root, 8, "version 2", version("nbdcrypt-root-key")},
		{"store of version 2", d.state + "/store", 8, "version 2", version("nbdcrypt-store")},
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
func version(kind string) func([]byte) []byte {
	return func(b []byte) []byte { return bytes.Replace(b, []byte(kind+" 1"), []byte(kind+" 2"), 1) }
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

// A catalog file that was truncated, flipped or lost is refused at the start and left as it is, or it does not matter; with the
// right one back all is there.
func TestDamagedCatalog(t *testing.T) {
	t.Parallel()
	d := wellKept(t)
	catalog := d.state + "/catalog"
	refused := 0
	for _, path := range files(t, catalog) {
		good := readFile(t, path)
		harms := map[string]func([]byte) []byte{
			"gone":  nil,
			"empty": func([]byte) []byte { return nil },
			"half":  func(b []byte) []byte { return b[:len(b)/2] },
			"last":  func(b []byte) []byte { return b[:len(b)-1] },
		}
		for i := range 6 {
			if len(good) > 0 {
				harms["flip at "+string(rune('0'+i))+"/6"] = flip(i * len(good) / 6)
			}
		}
		for how, harm := range harms {
			if len(good) == 0 && harm != nil {
				continue
			}
			saved := tempDir(t)
			tool(t, "cp", "-a", d.state, saved)
			if harm == nil {
				check(t, os.Remove(path))
			} else {
				writeFile(t, path, harm(bytes.Clone(good)))
			}
			before := tree(t, d.dir)
			if line := d.tryStart(); line != "" {
				t.Logf("%s of %s: does not matter", how, filepath.Base(path))
				d.isWhole()
				d.stop()
			} else {
				refused++
				if code := d.wait(); code != 8 {
					t.Errorf("%s of %s: serve ended with %d, not 8", how, filepath.Base(path), code)
				}
				if files := changed(before, tree(t, d.dir)); len(files) != 0 {
					t.Errorf("%s of %s: %q changed", how, filepath.Base(path), files)
				}
			}
			if t.Failed() {
				t.Fatalf("%s of %s", how, filepath.Base(path))
			}
			check(t, os.RemoveAll(d.state))
			tool(t, "cp", "-a", saved+"/state", d.state)
		}
	}
	if refused < 8 {
		t.Errorf("only %d kinds of damage were refused", refused)
	}
	d.start()
	d.isWhole()
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

// A map with one flipped bit, anywhere, never makes a disk read wrong bytes: attach refuses, or reads answer EIO, or a second copy
// serves and all is right. What is damage, `check` finds.
func TestDamagedMap(t *testing.T) {
	t.Parallel()
	d := wellKept(t)
	d.start()
	path := filepath.Dir(d.show("vol").Layers[0].Segments[0]) + "/map.0000"
	good := readFile(t, path)
	outcomes := map[string]int{}
	for part := 0; part < len(good); part += 512 {
		for _, at := range []int{part + 1, part + 40, part + 500, part + 509} {
			writeFile(t, path, flip(at)(bytes.Clone(good)))
			outcome := d.attachDamaged(t, at)
			outcomes[outcome]++
		}
	}
	t.Logf("%v", outcomes)
	if outcomes["EIO"] == 0 || outcomes["right"] == 0 {
		t.Errorf("the flips did not meet every part: %v", outcomes)
	}
	for name, bad := range map[string][]byte{"half": good[:len(good)/2], "empty": {}, "both headers": flip(4096 + 9)(flip(9)(bytes.Clone(good))),
		"version 2": nextVersion(good)} {
		writeFile(t, path, bad)
		if e := d.refused(8, "attach", "vol"); !strings.Contains(e.Message, "vol") || e.Hint == "" {
			t.Errorf("%s: %+v", name, e)
		}
		d.refused(8, "check", "vol")
	}
	check(t, os.Remove(path))
	d.refused(8, "attach", "vol")
	writeFile(t, path, good)
	d.isWhole()
	d.checkClean()
}

// attachDamaged says what came of a flip: "refused", "EIO" or "right". Wrong bytes fail the test.
func (d *daemon) attachDamaged(t *testing.T, at int) string {
	t.Helper()
	r := execute(t, d.command("attach", "vol", "--json"))
	if r.code == 8 {
		return "refused"
	}
	if r.code != 0 {
		t.Fatalf("flip at %d: attach ended with %d: %s", at, r.code, r.stderr)
	}
	c := dial(t, d.show("vol").Attachments[0].URI)
	whole := make([]byte, 4<<20)
	copy(whole[777:], noise("vol", 1<<20))
	eio := readOrEIO(t, c, whole, at)
	code := execute(t, d.command("check", "vol")).code
	if want := map[bool]int{true: 8, false: 0}[eio]; eio && code != want {
		t.Errorf("flip at %d: reads answer EIO, and check ends with %d", at, code)
	}
	check(t, c.Disconnect())
	d.do("detach", "vol")
	if eio {
		return "EIO"
	}
	return "right"
}

// readOrEIO reads everything in blocks; each is right or answers EIO.
func readOrEIO(t *testing.T, c *nbdclient.Client, want []byte, at int) (eio bool) {
	t.Helper()
	got := make([]byte, 64<<10)
	for off := 0; off < len(want); off += len(got) {
		_, err := c.ReadAt(got, int64(off))
		switch {
		case errors.Is(err, syscall.EIO):
			eio = true
		case err != nil:
			t.Fatalf("flip at %d: reading %d: %v", at, off, err)
		case !bytes.Equal(got, want[off:][:len(got)]):
			t.Fatalf("flip at %d: wrong bytes at %d", at, off)
		}
	}
	return eio
}

// nextVersion is a map whose header says version 2 and is otherwise as it should be (docs/disk-format.md).
func nextVersion(good []byte) []byte {
	b := bytes.Clone(good)
	for _, header := range [][]byte{b[:4096], b[4096:8192]} {
		header[8] = 2
		binary.LittleEndian.PutUint32(header[4092:], crc32.Checksum(header[:4092], crc32.MakeTable(crc32.Castagnoli)))
	}
	return b
}

// TestDurability5_ZeroCiphertextIsDamage: a hole where data should be is EIO, not noise, and `check` finds it; a segment that is cut
// short or lost is refused.
func TestDurability5_ZeroCiphertextIsDamage(t *testing.T) {
	t.Parallel()
	d := wellKept(t)
	d.start()
	segment := d.show("vol").Layers[0].Segments[0]
	good := readFile(t, segment)
	bad := bytes.Clone(good)
	clear(bad[8192:12288])
	writeFile(t, segment, bad)
	c := dial(t, d.attach("vol"))
	if _, err := c.ReadAt(make([]byte, 4096), 8192); !errors.Is(err, syscall.EIO) {
		t.Errorf("reading a lost block: %v, not EIO", err)
	}
	expect(t, c, noise("vol", 1<<20)[12288-777:], 12288)
	d.refused(8, "check", "vol")
	d.do("detach", "vol")

	writeFile(t, segment, good[:len(good)-4096])
	d.refused(8, "attach", "vol")
	check(t, os.Remove(segment))
	d.refused(8, "attach", "vol")
	if _, err := os.Stat(segment); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a lost segment was made anew")
	}
	writeFile(t, segment, good)
	d.isWhole()
}
