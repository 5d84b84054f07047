//go:build vm

package vmtest

import (
	"fmt"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/vmtest/machine"
	"nbdcrypt/pkg/control"
)

const stopDaemon = "kill $(cat /run/daemon.pid); while kill -0 $(cat /run/daemon.pid) 2>/dev/null; do sleep 0.05; done"

// The OOM killer ends a daemon in the middle of a scaling: the next one takes back what was made of it, or has all of it, and scales on.
func TestScalingOutOfMemory(t *testing.T) {
	t.Parallel()
	m := withPool(t, "2G", machine.Options{})
	rounds := 1
	if long {
		rounds = 10
	}
	serve(m, "")
	m.Run(`nbdcrypt grant create
		nbdcrypt disk create seed --size 1M --encrypted; nbdcrypt image create small --from-disk seed
		nbdcrypt scaling config create config --from-image small --data-disk size=1M,encrypted
		nbdcrypt scaling group create group --config config --min 1 --max 50`)
	disks, layers := len(get[[]control.Disk](t, m, "disk list")), m.Run("ls /var/lib/nbdcrypt/pool")
	for n := range rounds {
		m.Run(stopDaemon + "\n! test -e /sys/fs/cgroup/daemon || rmdir /sys/fs/cgroup/daemon")
		serveAfter(m, inCgroup, "")
		m.Run(fmt.Sprintf(`before=$(ls /var/lib/nbdcrypt/pool | wc -l)
			echo 0 >/sys/fs/cgroup/daemon/memory.swap.max 2>/dev/null || true
			nbdcrypt scaling group scale group 50 >/run/scaling.log 2>&1 &
			while test $(ls /var/lib/nbdcrypt/pool | wc -l) -lt $((before + %d)); do :; done
			echo 4M >/sys/fs/cgroup/daemon/memory.max
			while kill -0 $(cat /run/daemon.pid) 2>/dev/null; do sleep 0.05; done
			grep 'oom_kill [1-9]' /sys/fs/cgroup/daemon/memory.events`, 3+8*n))
		serve(m, "")
		group := get[control.ScalingGroup](t, m, "scaling group show group")
		t.Logf("killed in a scaling, the next daemon has %d members", group.Size)
		servers, now := len(get[[]control.Server](t, m, "server list")), len(get[[]control.Disk](t, m, "disk list"))
		if group.Size != 1 && group.Size != 50 || servers != group.Size || now != disks+2*(group.Size-1) {
			t.Errorf("%d members, %d servers, %d disks of at first %d", group.Size, servers, now, disks)
		}
		if group := get[control.ScalingGroup](t, m, "scaling group scale group 50"); group.Size != 50 {
			t.Errorf("then it has %d members", group.Size)
		}
		m.Run("nbdcrypt scaling group scale group 1 --yes; nbdcrypt check")
		if now := m.Run("ls /var/lib/nbdcrypt/pool"); now != layers {
			t.Errorf("layers at first:\n%s\nin the end:\n%s", layers, now)
		}
	}
}
