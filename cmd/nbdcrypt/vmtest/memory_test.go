//go:build vm

package vmtest

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/vmtest/load"
	"nbdcrypt/cmd/nbdcrypt/vmtest/machine"
	"nbdcrypt/pkg/control"
)

// inCgroup puts the shell, and the daemon that it starts, under the limit of a cgroup.
const inCgroup = `
	mkdir -p /sys/fs/cgroup/daemon
	echo +memory >/sys/fs/cgroup/cgroup.subtree_control
	echo 96M >/sys/fs/cgroup/daemon/memory.max
	echo $$ >/sys/fs/cgroup/daemon/cgroup.procs`

// With 64 clients at work the daemon stays under a limit of 96 MiB. When the limit is taken from under it, the OOM killer ends it: every flushed byte is there after that,
// and the disk comes back without any loss to tell of.
func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	m := withPool(t, "2G", machine.Options{})
	rounds := 1
	if long {
		rounds = 10
	}
	for n := range rounds {
		m.Run("! test -e /sys/fs/cgroup/daemon || rmdir /sys/fs/cgroup/daemon")
		serveAfter(m, inCgroup, "")
		disk := fmt.Sprint("d", n)
		target := fmt.Sprintf(" 'nbd+unix:///%s?socket=/run/nbdcrypt/nbd.sock'", disk)
		plan := fmt.Sprintf("-seed %d -workers 64 -sectors 1024", 90+n)
		if n == 0 {
			m.Run("nbdcrypt grant create")
		}
		m.Run("nbdcrypt disk create " + disk + " --size 64M --encrypted; nbdcrypt attach " + disk)
		clients := startLoadWith(t, m, plan+target)
		clients.progress(t, m, 300)
		events := m.Run("cat /sys/fs/cgroup/daemon/memory.events /sys/fs/cgroup/daemon/memory.peak 2>/dev/null || cat /sys/fs/cgroup/daemon/memory.current")
		if !strings.Contains(events, "oom_kill 0") {
			t.Fatalf("64 clients do not fit into 96 MiB:\n%s", events)
		}
		m.Run(`echo 0 >/sys/fs/cgroup/daemon/memory.swap.max 2>/dev/null || true
			echo 4M >/sys/fs/cgroup/daemon/memory.max
			while kill -0 $(cat /run/daemon.pid) 2>/dev/null; do sleep 0.05; done
			grep 'oom_kill [1-9]' /sys/fs/cgroup/daemon/memory.events`)
		acks := clients.broken()
		serve(m, "")
		if at := get[control.Attached](t, m, "attach "+disk); at.Unclean {
			t.Errorf("the attach after it says %+v", at)
		}
		r := verifyLoad(t, m, plan+" ", target, acks)
		tally(t, "OOM kill of the daemon under 64 clients", 1, r.Promised, r.Lost)
		m.Run(`nbdcrypt detach ` + disk + `; nbdcrypt disk delete ` + disk + ` --yes; nbdcrypt check
			` + stopDaemon)
	}
}

// broken waits until the load has ended by itself, and returns what it was promised.
func (w *writing) broken() load.Acks {
	<-w.ended
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.acks.Clone()
}

// verifyLoad holds a target against what was acknowledged.
func verifyLoad(t *testing.T, m *machine.Machine, plan, target string, acks load.Acks) (r load.Result) {
	t.Helper()
	text, err := json.Marshal(acks)
	check(t, err)
	m.Put("/run/acks", text, 0o600)
	check(t, json.Unmarshal([]byte(m.Run("guest load "+plan+`-verify "$(cat /run/acks)" `+target)), &r))
	if r.Promised == 0 || r.Garbage != 0 || r.First != "" {
		t.Errorf("verified: %+v", r)
	}
	return r
}
