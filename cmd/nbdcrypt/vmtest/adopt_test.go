//go:build vm

package vmtest

import (
	"strings"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/vmtest/load"
	"nbdcrypt/cmd/nbdcrypt/vmtest/machine"
)

// A device whose keeper was killed goes on under programs that write to it, and another attach becomes its keeper: that one sees connections die, one by
// one and all at once, and mends them; what it knows outlives it in turn.
func TestAdopted(t *testing.T) {
	t.Parallel()
	m := withPool(t, "1G", machine.Options{})
	serve(m, "")
	m.Run(`nbdcrypt grant create
		nbdcrypt disk create d --size 128M --encrypted
		nbdcrypt attach d --device auto --connections 4 --timeout 2s
		mkfs.ext4 -q /dev/nbd0; mkdir -p /mnt/d; mount -o errors=remount-ro /dev/nbd0 /mnt/d; truncate -s 8M /mnt/d/load`)
	writer := startLoad(t, m, "/mnt/d/load")
	writer.progress(t, m, 10)
	const killKeeper = `for pid in $(pidof nbdcrypt); do [ $pid = $(cat /run/daemon.pid) ] || kill -9 $pid; done
		until nbdcrypt disk show d 2>&1 | grep -q 'has no keeper'; do sleep 0.05; done
`
	ways := []string{"killed"}
	if long {
		ways = append(ways, "halted", "killed")
	}
	for _, how := range ways {
		t.Log("the keeper is killed, then the daemon " + how)
		m.Run(killKeeper)
		writer.progress(t, m, 10)
		out := m.Run("nbdcrypt attach d --device auto --timeout 2s 2>&1; nbdcrypt disk show d 2>&1")
		if !strings.Contains(out, "/dev/nbd0 had lost its keeper, and has one again") || strings.Contains(out, "has no keeper") {
			t.Errorf("attach says:\n%s", out)
		}
		if how == "halted" {
			m.Run("kill -STOP $(cat /run/daemon.pid); sleep 5; kill -CONT $(cat /run/daemon.pid)")
		} else {
			m.Run("kill -9 $(cat /run/daemon.pid); while kill -0 $(cat /run/daemon.pid) 2>/dev/null; do sleep 0.02; done")
			serve(m, "")
		}
		writer.progress(t, m, 10)
		// All four are at work again, and the spare one is the keeper's.
		m.Run("for i in $(seq 100); do nbdcrypt disk show d | grep -q ', 5 clients' && exit 0; sleep 0.1; done; nbdcrypt disk show d; dmesg | tail -n 30; exit 1")
		tally(t, "keeper killed, then the daemon "+how, 1, 0, 0)
	}
	acks := writer.stop(m)
	verifyMounted(t, m, acks)

	if long {
		leftByBoth(t, m, acks)
	}
	m.Run("umount /mnt/d; nbdcrypt detach d; nbdcrypt check; kill $(cat /run/daemon.pid)")
}

// leftByBoth kills daemon and keeper: nothing goes on over that by itself, and what was written before is there after that.
func leftByBoth(t *testing.T, m *machine.Machine, acks load.Acks) {
	t.Helper()
	m.Run("for pid in $(pidof nbdcrypt); do kill -9 $pid; done; while pidof nbdcrypt >/dev/null; do sleep 0.05; done")
	serve(m, "")
	refused(t, m, 6, "attach d --device auto", "from an attachment of disk d that has ended")
	m.Run(`nbdcrypt detach d --force; umount /mnt/d; until [ ! -e /sys/block/nbd0/pid ]; do sleep 0.05; done
		nbdcrypt attach d --device auto; e2fsck -p /dev/nbd0 || [ $? = 1 ]; mount /dev/nbd0 /mnt/d`)
	verifyMounted(t, m, acks)
}
