//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"nbdcrypt/nbd/nbdclient"
)

// disks10 is how many disks are attached while memory is searched.
const manyDisks = 10

// busy reads and writes on a connection until it breaks.
func busy(c *nbdclient.Client, rounds *atomic.Int64) {
	data, back := noise("busy", 1<<16), make([]byte, 1<<16)
	for at := int64(0); ; at = (at + 1<<16 + 512) % (3 << 20) {
		if _, err := c.WriteAt(data, at); err != nil {
			return
		}
		if _, err := c.ReadAt(back, at); err != nil || !bytes.Equal(back, data) {
			return
		}
		rounds.Add(1)
	}
}

// underLoad makes and attaches disks, and has each read and written from a connection until it is detached.
func (d *daemon) underLoad() (wait func()) {
	d.t.Helper()
	var all sync.WaitGroup
	var rounds atomic.Int64
	for i := range manyDisks {
		name := fmt.Sprint("disk", i)
		d.create(name, "4M", "--encrypted")
		c := dial(d.t, d.attach(name))
		all.Go(func() { busy(c, &rounds) })
	}
	waitFor(d.t, "there is no load", func() bool { return rounds.Load() > 100 })
	return all.Wait
}

// aeskeyfind must print nothing.
func aeskeyfind(t *testing.T, when string) func(path string) {
	return func(path string) {
		t.Helper()
		if keys := tool(t, "aeskeyfind", "-q", path); strings.TrimSpace(keys) != "" {
			t.Errorf("%s: aeskeyfind prints:\n%s", when, keys)
		}
	}
}

// TestRuleA12_KeysAreInNoReadableMemory goes through the life of keys.
func TestRuleA12_KeysAreInNoReadableMemory(t *testing.T) {
	t.Parallel()
	d := keytestDaemon(t)
	d.start()
	d.do("grant", "create")
	wait := d.underLoad()
	var shots []*snapshot
	shoot := func(when string) {
		t.Helper()
		for _, s := range []*snapshot{memory(t, d.pid()), core(t, d.pid(), false, aeskeyfind(t, when)), core(t, d.pid(), true, aeskeyfind(t, when))} {
			s.name = when + ", " + s.name
			shots = append(shots, s)
			t.Logf("%s: %d MiB read, %d MiB not zero", s.name, s.read>>20, len(s.blob)>>20)
		}
	}
	shoot("attached")
	d.collect()
	shoot("attached, garbage collected")
	for i := range manyDisks {
		d.do("detach", fmt.Sprint("disk", i))
	}
	wait()
	shoot("detached")
	d.collect()
	shoot("detached, garbage collected")
	d.stop()
	scanner := d.scanner()
	for _, s := range shots {
		if !bytes.Contains(s.blob, fmt.Appendf(nil, "PLANTED=%x", planted)) {
			t.Errorf("%s: control: what was planted is not found", s.name)
		}
		for i, l := range s.leaks(scanner) {
			if i == 20 {
				break
			}
			t.Errorf("%s: %v: %s", s.name, l.Hit, l.place)
		}
	}
}
