//go:build integration

package integration

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"nbdcrypt/nbd/nbdclient"
)

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
