//go:build integration

package integration

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"nbdcrypt/pkg/control"
)

// forms are the ways in which a secret could stand in a file: every 16 bytes of it raw, in hex, and in base64 at each of the three
// places that a byte can have in a group.
func forms(secret []byte) (all [][]byte) {
	for i := 0; i+16 <= len(secret); i += 16 {
		piece := secret[i : i+16]
		digits := hex.EncodeToString(piece)
		all = append(all, piece, []byte(digits), []byte(strings.ToUpper(digits)))
		for shift := range 3 {
			// The first and the last groups also hold bits of the neighbours; those between are the piece's own.
			padded := append(make([]byte, shift), piece...)
			whole := len(padded) / 3 * 4
			for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
				all = append(all, []byte(encoding.EncodeToString(padded)[min(shift, 1)*4:whole]))
			}
		}
	}
	return all
}

// foundIn returns the files below dirs that hold any form of the secret.
func foundIn(t *testing.T, secret []byte, dirs ...string) (found []string) {
	t.Helper()
	wanted := forms(secret)
	for _, path := range files(t, dirs...) {
		if b, err := os.ReadFile(path); err == nil && containsAny(b, wanted) {
			found = append(found, path)
		}
	}
	return found
}

func containsAny(b []byte, wanted [][]byte) bool {
	for _, w := range wanted {
		if bytes.Contains(b, w) {
			return true
		}
	}
	return false
}

// TestScannerFinds is the control of the tests below: what is planted is found, in every form and at every place.
func TestScannerFinds(t *testing.T) {
	secret := noise("secret", 32)
	for shift := range 7 {
		around := append(noise("before", shift), append(bytes.Clone(secret), noise("after", 50)...)...)
		for what, text := range map[string]string{
			"raw": string(around), "hex": hex.EncodeToString(around), "HEX": strings.ToUpper(hex.EncodeToString(around)),
			"base64": base64.StdEncoding.EncodeToString(around), "base64url": base64.RawURLEncoding.EncodeToString(around),
		} {
			dir := t.TempDir()
			writeFile(t, dir+"/file", []byte("key: "+text))
			if len(foundIn(t, secret, dir)) != 1 {
				t.Errorf("%s at %d is not found", what, shift)
			}
			if len(foundIn(t, noise("another", 32), dir)) != 0 {
				t.Errorf("%s at %d: what is not there is found", what, shift)
			}
		}
	}
}

// rootKey reads the bytes of the root key from its file.
func (d *daemon) rootKey() []byte {
	d.t.Helper()
	_, rest, ok := strings.Cut(string(readFile(d.t, d.root)), "\nkey ")
	digits, _, _ := strings.Cut(rest, "\n")
	key, err := hex.DecodeString(digits)
	if !ok || err != nil || len(key) != 32 {
		d.t.Fatalf("no key in %s: %v", d.root, err)
	}
	return key
}

// dek asks for the data key of a disk with one layer.
func (d *daemon) dek(name string) []byte {
	d.t.Helper()
	e := get[control.Escrow](d, "disk", "escrow", name, "--yes")
	if e.Cipher != "aes-xts-plain64" || len(e.Layers) != 1 {
		d.t.Fatalf("escrow of %s: cipher %s, %d layers", name, e.Cipher, len(e.Layers))
	}
	key, err := hex.DecodeString(e.Layers[0].Key)
	if err != nil || len(key) != 64 || bytes.Equal(key[:32], key[32:]) {
		d.t.Fatalf("escrow of %s: no XTS key of two different halves", name)
	}
	return key
}

// TestRuleA5_NoKeyInAnyFile scans what the daemon writes, running and stopped.
func TestRuleA5_NoKeyInAnyFile(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.do("key", "create", "mine")
	d.create("one", "8M", "--encrypted")
	d.create("two", "8M", "--key=mine")
	secrets := map[string][]byte{"root key": d.rootKey(), "DEK of one": d.dek("one"), "DEK of two": d.dek("two")}
	if len(foundIn(t, secrets["root key"], d.dir+"/key")) != 1 {
		t.Error("control: the root key is not found in its own file")
	}
	nowhere := func(when string) {
		t.Helper()
		for what, secret := range secrets {
			if found := foundIn(t, secret, d.state, d.pool, d.run, d.log); len(found) != 0 {
				t.Errorf("%s: the %s is in %q", when, what, found)
			}
		}
	}
	c := dial(t, d.attach("one"))
	write(t, c, noise("one", 1<<20), 12345)
	check(t, c.Flush())
	nowhere("running")
	d.stop()
	nowhere("stopped")
	d.start()
	nowhere("started again")
	d.kill()
	nowhere("killed")

	if info, err := os.Stat(d.root); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the root key file has mode %v, err %v", info.Mode(), err)
	}
	// Rule A4: without the root key nothing opens.
	check(t, os.Rename(d.root, d.root+".away"))
	d.refusesToStart(10)
	check(t, os.Rename(d.root+".away", d.root))
	d.start()
	expect(t, dial(t, d.attach("one")), noise("one", 1<<20), 12345)
}

// TestRuleA12_AuditNamesTheKey: attach leaves a record of which key was unwrapped, for whom.
func TestRuleA12_AuditNamesTheKey(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	disk := d.create("vol", "8M", "--encrypted")
	d.create("open", "8M", "--plain")
	d.attach("vol")
	d.attach("open")
	keys := map[string]string{}
	for line := range strings.Lines(string(readFile(t, d.state+"/audit.log"))) {
		var record struct{ Verb, Resource, Outcome, Key, User string }
		check(t, json.Unmarshal([]byte(line), &record))
		if record.Verb == "attach" && record.Outcome == "ok" && record.User == "root" {
			keys[record.Resource] = record.Key
		}
	}
	if len(keys) != 2 || !strings.HasPrefix(keys[disk.ID], disk.Key.ID) {
		t.Errorf("the audit log says %q of the attach under key %s", keys, disk.Key.ID)
	}
	if keys[d.show("open").ID] != "" {
		t.Errorf("a key is named for a plain disk: %q", keys)
	}
}
