//go:build vm

package vmtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"nbdcrypt/cmd/nbdcrypt/vmtest/load"
	"nbdcrypt/cmd/nbdcrypt/vmtest/machine"
)

// mountedFlags are those of the load on a file of the mounted file system.
const mountedFlags = "-seed 8 -workers 4 -sectors 4096"

// A file system that is mounted lives through kills of the daemon, clean stops, and times in which it does nothing, with programs that write to it: they
// wait, and go on. All that was acknowledged to them is there.
func TestMountedThroughKills(t *testing.T) {
	t.Parallel()
	m := withPool(t, "2G", machine.Options{})
	serve(m, "")
	m.Run(`nbdcrypt grant create
		nbdcrypt disk create d --size 400M --encrypted
		nbdcrypt attach d --device auto --connections 4 --timeout 2s
		mkfs.ext4 -q /dev/nbd0
		mkdir -p /mnt/d
		mount -o errors=remount-ro /dev/nbd0 /mnt/d
		truncate -s 8M /mnt/d/load`)
	writer := startLoad(t, m, "/mnt/d/load")
	for n := range *kills {
		writer.progress(t, m, 20)
		how := []string{"killed", "stopped", "halted"}[n%3]
		switch how {
		case "halted": // for longer than the kernel waits, which sends all again that has no answer
			m.Run("kill -STOP $(cat /run/daemon.pid); sleep 5; kill -CONT $(cat /run/daemon.pid)")
		default:
			m.Run("kill -" + map[string]string{"killed": "KILL", "stopped": "TERM"}[how] + " $(cat /run/daemon.pid); while kill -0 $(cat /run/daemon.pid) 2>/dev/null; do sleep 0.02; done")
			serve(m, "")
		}
		writer.progress(t, m, 20)
		tally(t, "daemon "+how+" under a mounted file system", 1, 0, 0)
	}
	acks := writer.stop(m)
	verifyMounted(t, m, acks)
	if out := m.Run("dmesg"); strings.Contains(out, "I/O error") || strings.Contains(out, "EXT4-fs error") {
		t.Errorf("the kernel says:\n%s", out)
	}
	m.Run("umount /mnt/d; nbdcrypt detach d; nbdcrypt attach d --device auto; e2fsck -fn /dev/nbd0; mount /dev/nbd0 /mnt/d")
	verifyMounted(t, m, acks)
	m.Run("umount /mnt/d; nbdcrypt detach d; nbdcrypt check; kill $(cat /run/daemon.pid)")
}

// verifyMounted holds the file against what was acknowledged.
func verifyMounted(t *testing.T, m *machine.Machine, acks load.Acks) {
	t.Helper()
	text, err := json.Marshal(acks)
	check(t, err)
	m.Put("/run/acks", text, 0o600)
	var r load.Result
	out := m.Run("guest load " + mountedFlags + ` -verify "$(cat /run/acks)" /mnt/d/load`)
	check(t, json.Unmarshal([]byte(out), &r))
	if r.Promised == 0 || r.Garbage != 0 {
		t.Errorf("verified: %+v", r)
	}
	tally(t, "files of a mounted file system, after all that", 1, r.Promised, r.Lost)
}

// writing is a load in the guest, and what it has said.
type writing struct {
	mu    sync.Mutex
	acks  load.Acks
	lines int
	ended chan error
}

func startLoad(t *testing.T, m *machine.Machine, target string) *writing {
	return startLoadWith(t, m, mountedFlags+" "+target)
}

func startLoadWith(t *testing.T, m *machine.Machine, args string) *writing {
	w := &writing{ended: make(chan error, 1)}
	script := "guest load " + args + " & echo $! >/run/load.pid; wait $!"
	go func() {
		code, err := m.Follow(t.Context(), script, func(line string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.acks.Take(line) {
				w.lines++
			}
		})
		w.ended <- errors.Join(fmt.Errorf("the load ended with %d", code), err)
	}()
	return w
}

func (w *writing) said() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lines
}

// progress waits until the load has said so many more lines.
func (w *writing) progress(t *testing.T, m *machine.Machine, more int) {
	t.Helper()
	const why = "dmesg | tail -n 20; cat /run/daemon.log; nbdcrypt disk show d"
	want := w.said() + more
	for limit := time.Now().Add(time.Minute); w.said() < want; time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-w.ended:
			t.Fatal(err, m.Run(why))
		default:
		}
		if time.Now().After(limit) {
			t.Fatal("the load stands still:\n", m.Run(why))
		}
	}
}

// stop ends the load, and returns what it was promised.
func (w *writing) stop(m *machine.Machine) load.Acks {
	m.Run("kill $(cat /run/load.pid)")
	<-w.ended
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.acks.Clone()
}
