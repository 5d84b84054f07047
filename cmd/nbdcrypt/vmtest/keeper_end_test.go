//go:build vm

package vmtest

import (
	"fmt"
	"strings"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/vmtest/machine"
)

// ending is one of a daemon's: before leads to it, after comes when there is another one, and code and says are the keeper's.
type ending struct {
	name, before, after string
	down                bool // there is none while the keeper asks
	code                int
	says                string
}

// Where a device must not go on with what another run of the daemon gives (its key is disabled, answered writes are lost, somebody had the disk
// meanwhile), or can't, it is disconnected, and the keeper says why: what is mounted gets errors instead of something else. Nothing of what was synced
// before is lost.
func TestRuleA22_DeviceStaysDown(t *testing.T) {
	t.Parallel()
	m := withPool(t, "1G", machine.Options{})
	serve(m, "")
	m.Run("nbdcrypt grant create; mkdir -p /mnt/d; nbdcrypt key create k; nbdcrypt disk create d --size 64M --encrypted --key k")
	const kill = "kill -KILL $(cat /run/daemon.pid); while kill -0 $(cat /run/daemon.pid) 2>/dev/null; do sleep 0.02; done\n"
	ends := []ending{
		{name: "key disabled", before: "nbdcrypt key disable k\n" + kill, code: 4, says: "is Disabled"},
		{name: "answers lost", before: kill + "rm -r /run/nbdcrypt/journal", code: 8, says: "may be lost"},
	}
	if long {
		ends = append(ends, ending{name: "attached meanwhile", before: "kill -STOP $(cat /run/keeper.pid)\n" + kill,
			after: "nbdcrypt attach d; nbdcrypt detach d; kill -CONT $(cat /run/keeper.pid)", code: 8, says: "meanwhile"},
			ending{name: "no daemon", before: kill, down: true, code: 7, says: "no daemon"})
	}
	for n, end := range ends {
		m.Run(`rm -f /run/keeper.code; >/run/keeper.out
			(nbdcrypt attach d --device /dev/nbd1 --timeout 1s --reconnect 3s --foreground & echo $! >/run/keeper.pid
				code=0; wait $! || code=$?; echo "exit $code" >/run/keeper.code) >/run/keeper.out 2>&1 &
			until grep -q /dev/nbd1 /run/keeper.out; do [ ! -s /run/keeper.code ]; sleep 0.05; done`)
		if n == 0 {
			m.Run("mkfs.ext4 -q /dev/nbd1")
		}
		m.Run(fmt.Sprintf("mount /dev/nbd1 /mnt/d; head -c 3000 /dev/urandom >/mnt/d/%d; sync /mnt/d/%[1]d; sha256sum /mnt/d/[0-9] >/run/sums", n))
		m.Run(end.before)
		if !end.down {
			serve(m, "")
		}
		m.Run(end.after)
		out := m.Run(`until [ -s /run/keeper.code ]; do sleep 0.05; done; cat /run/keeper.code /run/keeper.out
			if dd if=/dev/zero of=/mnt/d/more bs=4096 count=1 conv=fsync 2>/dev/null; then echo "written to a device that is down"; fi
			umount /mnt/d; until [ ! -e /sys/block/nbd1/pid ]; do sleep 0.05; done`)
		if !strings.HasPrefix(out, fmt.Sprintf("exit %d\n", end.code)) || !strings.Contains(out, end.says) || strings.Contains(out, "written to a device") {
			t.Errorf("%s: the keeper ended with\n%s", end.name, out)
		}
		if end.down {
			serve(m, "")
		}
		again := m.Run("nbdcrypt key enable k; nbdcrypt attach d --device /dev/nbd1; e2fsck -p /dev/nbd1 || [ $? = 1 ]; mount /dev/nbd1 /mnt/d; sha256sum -c /run/sums; umount /mnt/d; nbdcrypt detach d")
		if strings.Count(again, "OK") != n+1 {
			t.Errorf("%s: after that:\n%s", end.name, again)
		}
	}
}
