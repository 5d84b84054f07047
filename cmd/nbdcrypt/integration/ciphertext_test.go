//go:build integration

package integration

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"nbdcrypt/pkg/control"
)

// independentXTS decrypts a range of a segment file with python3-cryptography, which is OpenSSL's XTS and not ours.
const independentXTS = `
import sys
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
path, key, unit, at, n = sys.argv[1], bytes.fromhex(sys.argv[2]), *map(int, sys.argv[3:])
with open(path, "rb") as f:
    for off in range(at, at + n, unit):
        f.seek(off)
        d = Cipher(algorithms.AES(key), modes.XTS((off // 512).to_bytes(16, "little"))).decryptor()
        sys.stdout.buffer.write(d.update(f.read(unit)) + d.finalize())
`

// decrypt reads what the segment file of a disk holds, given the key from escrow.
func decrypt(t *testing.T, disk control.Disk, key []byte, at int64, n int) []byte {
	t.Helper()
	return []byte(tool(t, "python3", "-c", independentXTS, disk.Layers[0].Segments[0], hex.EncodeToString(key),
		fmt.Sprint(disk.SectorSize), fmt.Sprint(at), fmt.Sprint(n)))
}

// marker is plaintext that a search of a file finds wherever a sector of it stands.
var marker = bytes.Repeat([]byte("nbdcrypt-plaintext-marker-0123456789-ABCDEFGHIJ\n"), 2048)

// markerIn returns the daemon's files that hold the marker.
func (d *daemon) markerIn() (found []string) {
	d.t.Helper()
	for _, path := range files(d.t, d.state, d.pool, d.run, filepath.Dir(d.root), d.log) {
		if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, marker[:200]) {
			found = append(found, path)
		}
	}
	return found
}

// TestRuleA1_IndependentXTSReadsTheDisk: XTS-AES-256, laid out as dm-crypt's aes-xts-plain64.
func TestRuleA1_IndependentXTSReadsTheDisk(t *testing.T) {
	eachDisk(t, "16M", func(t *testing.T, d *daemon, name, uri string) {
		disk := d.show(name)
		if !disk.Encrypted {
			return
		}
		c := dial(t, uri)
		offsets := []int64{0, 1<<20 + 4096, 3<<20 + 777, 16<<20 - int64(len(marker))}
		for _, at := range offsets {
			write(t, c, marker, at)
		}
		check(t, c.Flush())
		key := d.dek(name)
		for _, at := range offsets {
			from := at &^ 4095
			got := decrypt(t, disk, key, from, min(128<<10, int(16<<20-from)))
			if !bytes.HasPrefix(got[at-from:], marker) {
				t.Errorf("what was written at %d decrypts to something else", at)
			}
		}
	})
}

// TestRuleA1_NoPlaintextInAnyFile: a plain disk, which is the control, shows what was written; an encrypted one does not.
func TestRuleA1_NoPlaintextInAnyFile(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	fill := func(name string) string {
		c := dial(t, d.attach(name))
		write(t, c, marker, 12345)
		check(t, c.Flush())
		return d.show(name).Layers[0].Segments[0]
	}
	for _, kind := range disks[2:] {
		d.create(kind.name, "16M", kind.flags...)
		fill(kind.name)
	}
	if found := d.markerIn(); len(found) != 0 {
		t.Errorf("attached: plaintext is in %q", found)
	}
	d.stop()
	if found := d.markerIn(); len(found) != 0 {
		t.Errorf("stopped: plaintext is in %q", found)
	}
	d.start()
	d.create("control", "16M", "--plain")
	segment := fill("control")
	if found := d.markerIn(); len(found) != 1 || found[0] != segment {
		t.Errorf("control: the plaintext of a plain disk is in %q, not in %s alone", found, segment)
	}
}

// TestRuleA11_EachDiskHasItsOwnKey: disks choose their CMK, and two on one CMK still have two DEKs.
func TestRuleA11_EachDiskHasItsOwnKey(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.do("key", "create", "first")
	d.do("key", "create", "second")
	seen := map[string]string{}
	for _, disk := range []struct{ name, key string }{{"a", "first"}, {"b", "first"}, {"c", "second"}, {"d", "evs/default"}} {
		made := d.create(disk.name, "4M", "--key", disk.key)
		if made.Key == nil || made.Key.Alias != disk.key || !made.Encrypted {
			t.Errorf("%s is under %+v, not %s", disk.name, made.Key, disk.key)
		}
		c := dial(t, d.attach(disk.name))
		write(t, c, marker[:4096], 0)
		check(t, c.Flush())
		for what, value := range map[string][]byte{"key": d.dek(disk.name), "ciphertext": readFile(t, made.Layers[0].Segments[0])[:512]} {
			if other, ok := seen[string(value)]; ok {
				t.Errorf("%s and %s have the same %s", disk.name, other, what)
			}
			seen[string(value)] = disk.name
		}
	}
	if len(seen) != 8 {
		t.Errorf("%d values were compared, not 8", len(seen))
	}
}
