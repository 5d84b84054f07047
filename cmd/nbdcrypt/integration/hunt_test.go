//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/integration/keyscan"
	"nbdcrypt/nbd/nbdclient"
)

// A hunt takes snapshots of a daemon's memory while it lives. Its keys are known when it has ended, and are looked for then.
type hunt struct {
	*daemon
	shots []shot
}

// A shot is a snapshot with what may be in it.
type shot struct {
	*snapshot
	// readable: keys lie in memory that root can read. Those in use must be found there, as a control.
	readable bool
	// only counts the keys that were handed out before and must be gone; without it all must, those of later too.
	only int
}

// startHunt starts a daemon of the test build.
func startHunt(t *testing.T, env ...string) *hunt {
	t.Helper()
	h := &hunt{daemon: keytestDaemon(t, env...)}
	h.begin()
	return h
}

func (h *hunt) begin() {
	h.t.Helper()
	h.start()
	h.do("grant", "create")
}

// memory takes a snapshot of what root can read, and core one of what gdb writes.
func (h *hunt) memory(when string) {
	h.t.Helper()
	s := memory(h.t, h.pid())
	h.aeskeyfind(when, s)
	if s.unreadable == 0 {
		h.t.Errorf("%s: there is no memory for keys that root can't read", when)
	}
	h.keep(when, shot{snapshot: s})
}

func (h *hunt) core(when string, all bool) {
	h.t.Helper()
	s := core(h.t, h.pid(), all)
	h.aeskeyfind(when, s)
	h.keep(when, shot{snapshot: s})
}

func (h *hunt) keep(when string, s shot) {
	s.name = when + ", " + s.name
	h.shots = append(h.shots, s)
	h.t.Logf("%s: %d MiB, of them %d not zero", s.name, s.read>>20, len(s.blob)>>20)
}

// aeskeyfind must print nothing.
func (h *hunt) aeskeyfind(when string, s *snapshot) {
	h.t.Helper()
	if keys := inDaemons.aeskeyfind(h.t, s); keys != "" {
		h.t.Errorf("%s: aeskeyfind prints:\n%s", when, keys)
	}
}

// end stops the daemon and looks for every key that it had, in the snapshots and in all files.
func (h *hunt) end() {
	h.t.Helper()
	h.stop()
	keys := h.keys()
	scanner := h.scanner(keys, "root", "catalog", "cmk", "dek", "derived")
	for _, s := range h.shots {
		if s.only > 0 {
			h.judge(s, s.leaks(h.gone(keys, s.only)))
		} else {
			h.judge(s, s.leaks(scanner))
		}
	}
	h.searchFiles("after shutdown", scanner)
	for _, path := range []string{h.root, h.handedOut()} {
		if len(scanner.Scan(readFile(h.t, path))) == 0 {
			h.t.Errorf("control: no key is found in %s", path)
		}
	}
}

// searchFiles looks for keys in everything that the daemon writes. The erase file is for erase keys; alone they open nothing.
func (h *hunt) searchFiles(when string, scanner *keyscan.Scanner) {
	h.t.Helper()
	for _, path := range files(h.t, h.state, h.pool, h.run, h.log) {
		for _, hit := range scanner.Scan(readFile(h.t, path)) {
			if path != h.state+"/erase" || !strings.HasPrefix(hit.Secret, "erase ") {
				h.t.Errorf("%s: %s: %v", when, path, hit)
			}
		}
	}
}

// leaksTold is how many leaks of a snapshot are told one by one.
const leaksTold = 10

// judge fails on any key in a snapshot.
func (h *hunt) judge(s shot, found []leak) {
	h.t.Helper()
	if !bytes.Contains(s.blob, fmt.Appendf(nil, "PLANTED=%x", planted)) {
		h.t.Errorf("%s: control: what was planted is not found", s.name)
	}
	if s.readable {
		if !slices.ContainsFunc(found, func(l leak) bool { return strings.HasPrefix(l.Secret, "dek ") && !l.Half() }) {
			h.t.Errorf("%s: control: keys lie in memory that can be read, and none is found", s.name)
		}
		return
	}
	bad := 0
	for _, l := range found {
		if l.passing() {
			h.t.Logf("%s: %v: %s", s.name, l.Hit, l.place)
			continue
		}
		if bad++; bad <= leaksTold {
			h.t.Errorf("%s: %v: %s", s.name, l.Hit, l.place)
		}
	}
	if bad > leaksTold {
		h.t.Errorf("%s: and %d more", s.name, bad-leaksTold)
	}
}

// passing tells of what the threat model says that registers hold for a moment: half of a round key; the whole first one of the tweak
// key, while sector 0 is begun; on arm64, any that is in use.
func (l leak) passing() bool {
	first := strings.HasSuffix(l.Secret, "tweak key") && l.Form == "encryption round key 0"
	return l.place == registers && (l.Half() || first || runtime.GOARCH == "arm64")
}

// busyDisks is how many disks are attached while memory is searched.
const busyDisks = 10

func busyDisk(i int) string { return fmt.Sprint("busy", i) }

// load makes and attaches disks, and has each read and written on a connection until it is detached.
func (h *hunt) load() (detach func()) {
	h.t.Helper()
	var clients sync.WaitGroup
	var rounds, ended atomic.Int64
	for i := range busyDisks {
		h.create(busyDisk(i), "4M", "--encrypted")
		c := dial(h.t, h.attach(busyDisk(i)))
		clients.Go(func() {
			defer ended.Add(1)
			busy(c, &rounds)
		})
	}
	goesOn := func() {
		h.t.Helper()
		enough := rounds.Load() + 100
		waitFor(h.t, "there is no load", func() bool { return rounds.Load() > enough })
		if ended.Load() != 0 {
			h.t.Fatal("the load ended early")
		}
	}
	goesOn()
	return func() {
		h.t.Helper()
		goesOn()
		for i := range busyDisks {
			h.do("detach", busyDisk(i))
		}
		clients.Wait()
	}
}

// busy reads and writes until the connection breaks.
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
