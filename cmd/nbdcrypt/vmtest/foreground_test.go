//go:build vm && long

package vmtest

import (
	"testing"

	"nbdcrypt/cmd/nbdcrypt/vmtest/machine"
	"nbdcrypt/pkg/control"
)

// TestKeeperInForeground: a signal to the keeper is a detach, and refused like one while the device is in use; so it is with what can't be
// mounted, and forced.
func TestKeeperInForeground(t *testing.T) {
	t.Parallel()
	m := withPool(t, "1G", machine.Options{})
	serve(m, "")
	m.Run("nbdcrypt grant create; nbdcrypt disk create d --size 128M --encrypted; mkdir -p /srv/d; nbdcrypt attach d --device auto; mkfs.ext4 -q /dev/nbd0; nbdcrypt detach d")

	t.Log("a signal to the keeper")
	m.Run("nbdcrypt attach d --device auto --mount /srv/d --foreground >/run/keeper.out 2>&1 & echo $! >/run/keeper")
	m.Run("until grep -q 'mounted at' /run/keeper.out; do kill -0 $(cat /run/keeper) || { cat /run/keeper.out; exit 1; }; sleep 0.05; done; cd /srv/d; sleep 1000 & echo $! >/run/holder")
	m.Run("kill $(cat /run/keeper); until grep -q 'nbd0 stays: ' /run/keeper.out; do kill -0 $(cat /run/keeper) || { cat /run/keeper.out; exit 1; }; sleep 0.05; done; [ -d /srv/d/lost+found ]")
	m.Run("kill $(cat /run/holder); sleep 0.1; kill $(cat /run/keeper); while kill -0 $(cat /run/keeper) 2>/dev/null; do sleep 0.05; done; [ -z \"$(grep /dev/nbd /proc/mounts)\" ]")
	if d := get[control.Disk](t, m, "disk show d"); d.Status != "available" {
		t.Errorf("after the signal the disk is %s", d.Status)
	}

	t.Log("what fails leaves nothing")
	m.Run("nbdcrypt disk create raw --size 8M")
	refused(t, m, 1, "attach raw --device auto --mount /srv/d", "can't be mounted")
	refused(t, m, 3, "attach raw --device auto --mount /none", "/none")
	if d := get[control.Disk](t, m, "disk show raw"); d.Status != "available" {
		t.Errorf("after a mount that failed the disk is %s", d.Status)
	}

	t.Log("force")
	m.Run("nbdcrypt attach d --device auto --mount /srv/d; cd /srv/d; sleep 1000 & echo $! >/run/holder")
	m.Run(`nbdcrypt detach d --force 2>&1; kill $(cat /run/holder); sleep 0.1; umount /srv/d; until [ ! -e /sys/block/nbd0/pid ]; do sleep 0.05; done
		e2fsck -fy $(nbdcrypt attach d --device auto --json | sed -n 's/.*"device": "\(.*\)".*/\1/p') || [ $? = 1 ]; nbdcrypt detach d`)
	m.Run("[ $(pidof nbdcrypt) = $(cat /run/daemon.pid) ]; nbdcrypt check")
}
