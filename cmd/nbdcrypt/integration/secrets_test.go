//go:build integration

package integration

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/integration/keyscan"
	"nbdcrypt/pkg/control"
)

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
	scanner := keyscan.New()
	for what, secret := range map[string][]byte{"root key": d.rootKey(), "DEK of one": d.dek("one"), "DEK of two": d.dek("two")} {
		scanner.Key(what, secret)
	}
	if len(scanner.Scan(readFile(t, d.root))) == 0 {
		t.Error("control: the root key is not found in its own file")
	}
	nowhere := func(when string) {
		t.Helper()
		for _, path := range files(t, d.state, d.pool, d.run, d.log) {
			for _, hit := range scanner.Scan(readFile(t, path)) {
				t.Errorf("%s: %s: %v", when, path, hit)
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
}

// TestRuleA4_NothingOpensWithoutTheRootKey, and everything does with it.
func TestRuleA4_NothingOpensWithoutTheRootKey(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.create("one", "8M", "--encrypted")
	c := dial(t, d.attach("one"))
	write(t, c, noise("one", 1<<20), 12345)
	d.stop()
	check(t, os.Rename(d.root, d.root+".away"))
	d.refusesToStart(10)
	check(t, os.Rename(d.root+".away", d.root))
	d.start()
	expect(t, dial(t, d.attach("one")), noise("one", 1<<20), 12345)
}

// TestRuleA4_NoKeyUnderTheRootInAnyFile looks for everything that ever was in key memory, running, killed and stopped.
func TestRuleA4_NoKeyUnderTheRootInAnyFile(t *testing.T) {
	t.Parallel()
	h := startHunt(t)
	h.do("key", "create", "mine")
	h.create("one", "8M", "--encrypted")
	h.create("two", "8M", "--key=mine")
	for range 3 {
		for _, name := range []string{"one", "two"} {
			write(t, dial(t, h.attach(name)), noise(name, 1<<20), 12345)
		}
		h.searchFiles("running", h.scanner(h.keys()))
		h.kill()
		h.searchFiles("killed", h.scanner(h.keys()))
		h.start()
	}
	h.end()
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
