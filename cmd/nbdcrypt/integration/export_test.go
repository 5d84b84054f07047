//go:build integration

package integration

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"

	"nbdcrypt/pkg/control"
)

// TestExportedCiphertext: the exported file opens with XTS that is not ours and the printed key, holes too, and not with the disk's own key.
func TestExportedCiphertext(t *testing.T) {
	eachDisk(t, "8M", func(t *testing.T, d *daemon, name, uri string) {
		disk := d.show(name)
		file := filepath.Join(d.dir, name+".img")
		if !disk.Encrypted {
			d.do("detach", name)
			if got := d.refused(1, "disk", "export", name, file, "--ciphertext", "--yes"); got.Hint == "" {
				t.Errorf("a plain disk: %+v", got)
			}
			return
		}
		c := dial(t, uri)
		want := make([]byte, 8<<20)
		for _, at := range []int64{0, 3<<20 + 777, 8<<20 - 4096} {
			copy(want[at:], marker[:4096])
			write(t, c, marker[:4096], at)
		}
		check(t, c.Flush())
		if got := d.refused(6, "disk", "export", name, file, "--ciphertext", "--yes"); got.Hint == "" {
			t.Errorf("while it is attached: %+v", got)
		}
		own := d.dek(name)
		check(t, c.Disconnect())
		d.do("detach", name)
		var key control.Escrow
		check(t, json.Unmarshal([]byte(d.do("disk", "export", name, file, "--ciphertext", "--yes", "--json")), &key))
		if b := readFile(t, file); len(b) != len(want) || bytes.Contains(b, marker[:200]) || len(key.Layers) != 1 || key.Layers[0].Key == hex.EncodeToString(own) {
			t.Fatalf("%d bytes under %+v", len(b), key)
		}
		got := tool(t, "python3", "-c", independentXTS, file, key.Layers[0].Key, fmt.Sprint(key.SectorSize), "0", fmt.Sprint(len(want)))
		if !bytes.Equal([]byte(got), want) {
			t.Error("it decrypts to something else than the disk")
		}
		d.attach(name)
	})
}
