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

// A hunt takes snapshots of a daemon's memory while it lives. Its keys are known when it has ended, and are looked for then.
type hunt struct {
	*daemon
	shots []*snapshot
	// unprotected are snapshots in which keys must be found: of memory that only dumps leave out.
	unprotected map[*snapshot]bool
}

// startHunt starts a daemon of the test build.
func startHunt(t *testing.T, env ...string) *hunt {
	t.Helper()
	h := &hunt{daemon: keytestDaemon(t, env...), unprotected: map[*snapshot]bool{}}
	h.start()
	h.do("grant", "create")
	return h
}

// memory takes a snapshot of what root can read, and core one of what gdb writes.
func (h *hunt) memory(when string) *snapshot {
	h.t.Helper()
	return h.keep(when, memory(h.t, h.pid(), h.aeskeyfind(when)))
}

func (h *hunt) core(when string, all bool) *snapshot {
	h.t.Helper()
	return h.keep(when, core(h.t, h.pid(), all, h.aeskeyfind(when)))
}

func (h *hunt) keep(when string, s *snapshot) *snapshot {
	s.name = when + ", " + s.name
	h.shots = append(h.shots, s)
	h.t.Logf("%s: %d MiB, of them %d not zero", s.name, s.read>>20, len(s.blob)>>20)
	return s
}

// aeskeyfind must print nothing.
func (h *hunt) aeskeyfind(when string) func(path string) {
	return func(path string) {
		h.t.Helper()
		if keys := tool(h.t, "aeskeyfind", "-q", path); strings.TrimSpace(keys) != "" {
			h.t.Errorf("%s: aeskeyfind prints:\n%s", when, keys)
		}
	}
}

// end stops the daemon and looks for every key that it had, in the snapshots and in all files but those that are for keys.
func (h *hunt) end() {
	h.t.Helper()
	h.stop()
	scanner := h.scanner()
	for _, s := range h.shots {
		h.judge(s, s.leaks(scanner))
	}
	for _, path := range files(h.t, h.state, h.pool, h.run, h.log) {
		for _, hit := range scanner.Scan(readFile(h.t, path)) {
			if path != h.state+"/erase" || !strings.HasPrefix(hit.Secret, "erase ") {
				h.t.Errorf("after shutdown: %s: %v", path, hit)
			}
		}
	}
	for _, path := range []string{h.root, h.handedOut()} {
		if len(scanner.Scan(readFile(h.t, path))) == 0 {
			h.t.Errorf("control: no key is found in %s", path)
		}
	}
}

// judge fails on any key in a snapshot. Half a round key in a register is told and no failure: the threat model says when there is one.
func (h *hunt) judge(s *snapshot, found []leak) {
	h.t.Helper()
	if !bytes.Contains(s.blob, fmt.Appendf(nil, "PLANTED=%x", planted)) {
		h.t.Errorf("%s: control: what was planted is not found", s.name)
	}
	if h.unprotected[s] {
		if len(found) == 0 {
			h.t.Errorf("%s: control: keys lie in memory that can be read, and none is found", s.name)
		}
		return
	}
	bad := 0
	for _, l := range found {
		if l.Half() && l.place == registers {
			h.t.Logf("%s: %v: %s", s.name, l.Hit, l.place)
			continue
		}
		if bad++; bad <= 20 {
			h.t.Errorf("%s: %v: %s", s.name, l.Hit, l.place)
		}
	}
	if bad > 20 {
		h.t.Errorf("%s: and %d more", s.name, bad-20)
	}
}

// busyDisks is how many disks are attached while memory is searched.
const busyDisks = 10

func busyDisk(i int) string { return fmt.Sprint("busy", i) }

// load makes and attaches disks, and has each read and written on a connection until it is detached.
func (h *hunt) load() (detach func()) {
	h.t.Helper()
	var clients sync.WaitGroup
	var rounds atomic.Int64
	for i := range busyDisks {
		h.create(busyDisk(i), "4M", "--encrypted")
		c := dial(h.t, h.attach(busyDisk(i)))
		clients.Go(func() { busy(c, &rounds) })
	}
	enough := rounds.Load() + 100
	waitFor(h.t, "there is no load", func() bool { return rounds.Load() > enough })
	return func() {
		h.t.Helper()
		for i := range busyDisks {
			h.do("detach", busyDisk(i))
		}
		clients.Wait()
	}
}

// busy reads and writes until the connection breaks, beginning with sector 0, whose tweak is made of the key alone.
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
