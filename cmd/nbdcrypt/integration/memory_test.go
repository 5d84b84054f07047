//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

// memory reads every mapping of the daemon that root can read, and counts the pages of secretmem, which it can't.
func (d *daemon) memory() (readable []byte, secret int) {
	d.t.Helper()
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", d.pid()))
	check(d.t, err)
	defer mem.Close()
	lines := bufio.NewScanner(bytes.NewReader(readFile(d.t, fmt.Sprintf("/proc/%d/maps", d.pid()))))
	for lines.Scan() {
		var from, to uint64
		var mode string
		_, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &mode)
		check(d.t, err)
		if mode[0] != 'r' || strings.Contains(lines.Text(), "[v") { // no access, or the kernel's own pages
			continue
		}
		b := make([]byte, to-from)
		n, err := mem.ReadAt(b, int64(from))
		switch {
		case strings.Contains(lines.Text(), "/secretmem"):
			if n != 0 {
				d.t.Errorf("%d bytes of secret memory can be read", n)
			}
			secret += len(b)
		case strings.HasPrefix(mode, "rw") && err != nil:
			d.t.Errorf("%s: %v", lines.Text(), err)
		}
		readable = append(readable, b[:n]...)
	}
	return readable, secret
}

// TestRuleA12_KeysAreInNoReadableMemory looks for the keys of an attached disk under load wherever root, and so a core dump,
// can look, also after the DEK was given to a caller by escrow.
func TestRuleA12_KeysAreInNoReadableMemory(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	plant := noise("plant", 32)
	d.env = []string{fmt.Sprintf("PLANT=%x", plant)}
	d.start()
	d.do("grant", "create")
	d.create("canary-of-the-heap", "8M", "--encrypted")
	secrets := map[string][]byte{"root key": d.rootKey(), "DEK": d.dek("canary-of-the-heap")}
	d.stop()
	d.start()

	look := func(when string) {
		t.Helper()
		readable, secret := d.memory()
		if !containsAny(readable, forms(plant)) || !bytes.Contains(readable, []byte("canary-of-the-heap")) {
			t.Fatalf("%s: control: what was planted is not found in %d bytes", when, len(readable))
		}
		if secret == 0 {
			t.Errorf("%s: keys are not in secret memory", when)
		}
		for what, key := range secrets {
			if containsAny(readable, forms(key)) {
				t.Errorf("%s: the %s is in readable memory", when, what)
			}
		}
	}
	c := dial(t, d.attach("canary-of-the-heap"))
	for i := range int64(7) {
		write(t, c, noise("load", 1<<20), i<<20+i)
		expect(t, c, noise("load", 1<<20), i<<20+i)
	}
	check(t, c.Flush())
	look("attached")
	d.do("detach", "canary-of-the-heap")
	look("detached")
	if again := d.dek("canary-of-the-heap"); !bytes.Equal(again, secrets["DEK"]) {
		t.Error("escrow gives another key the second time")
	}
	look("after an escrow")

	limits := string(readFile(t, fmt.Sprintf("/proc/%d/limits", d.pid())))
	_, core, _ := strings.Cut(limits, "Max core file size")
	if fields := strings.Fields(core); len(fields) < 2 || fields[0] != "0" || fields[1] != "0" {
		t.Errorf("the daemon may dump core: %s", limits)
	}
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
