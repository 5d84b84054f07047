//go:build vm && long

package vmtest

import (
	"fmt"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/vmtest/machine"
	"nbdcrypt/pkg/control"
)

// A daemon that is killed while it waits for a sync takes the sync's outcome with it. Where the storage then fails, the next daemon must find out by
// other means, and tell; where it does not, nothing is lost and nothing is told. What was flushed before is there in both cases.
func TestKilledInASync(t *testing.T) {
	t.Parallel()
	disk := t.TempDir() + "/pool"
	tool(t, "truncate", "-s", "512M", disk)
	m := machine.Start(t, machine.Options{Disks: []machine.Disk{{Source: disk, Serial: "pool", Cache: "unsafe"}}})
	// Without a journal of its own, which would end the whole file system at the first error.
	m.Run(`
		dmsetup create pool --table "0 $(blockdev --getsz /dev/disk/by-serial/pool) linear /dev/disk/by-serial/pool 0"
		mkfs.ext4 -q -O ^has_journal /dev/mapper/pool
		mkdir -p /var/lib/nbdcrypt; mount /dev/mapper/pool /var/lib/nbdcrypt; chmod 700 /var/lib/nbdcrypt`)
	serve(m, "")
	m.Run("nbdcrypt grant create")
	for i, kind := range []string{"linear /dev/disk/by-serial/pool 0", "error"} {
		name, plan := fmt.Sprint("d", i), fmt.Sprintf("-seed %d -workers 4 -sectors 1024", 60+i)
		target := fmt.Sprintf(" 'nbd+unix:///%s?socket=/run/nbdcrypt/nbd.sock'", name)
		m.Run("nbdcrypt disk create " + name + " --size 32M --encrypted; nbdcrypt attach " + name)
		w := startLoadWith(t, m, plan+target)
		w.progress(t, m, 40)
		m.Run(fmt.Sprintf(`
			pid=$(cat /run/daemon.pid)
			dmsetup suspend --noflush --nolockfs pool
			for try in $(seq 200); do
				! cat /proc/$pid/task/*/stack | grep -q ext4_sync_file || break
				sleep 0.05
			done
			[ $try -lt 200 ] || { cat /proc/$pid/task/*/stack; exit 1; }
			kill -9 $pid
			size=$(blockdev --getsz /dev/disk/by-serial/pool)
			dmsetup load pool --table "0 $size %s"
			dmsetup resume pool
			for try in $(seq 200); do
				kill -0 $pid 2>/dev/null || break
				sleep 0.05
			done
			[ $try -lt 200 ] || { cat /proc/$pid/status /proc/$pid/task/*/stack; exit 1; }
			dmsetup suspend --noflush --nolockfs pool
			dmsetup load pool --table "0 $size linear /dev/disk/by-serial/pool 0"
			dmsetup resume pool`, kind))
		acks := w.broken()
		serve(m, "")
		if at := get[control.Attached](t, m, "attach "+name); at.Unclean != (kind == "error") {
			t.Errorf("with storage %q the attach says %+v", kind, at)
		}
		r := verifyLoad(t, m, plan+" ", target, acks)
		tally(t, "daemon killed in a sync, storage then "+kind[:5], 1, r.Promised, r.Lost)
		m.Run("nbdcrypt detach " + name)
	}
}
