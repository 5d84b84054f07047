//go:build vm && long

package vmtest

import (
	"strings"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/vmtest/machine"
	"nbdcrypt/pkg/control"
)

// TestSystemdKeeper: udev finds the devices of disks by the disks' ids, and the service manager starts another keeper for a device whose keeper was
// killed. What is mounted stays so meanwhile, and goes on when the daemon is killed after that.
func TestSystemdKeeper(t *testing.T) {
	t.Parallel()
	m := withSystemd(t)()
	disksOneAndTwo(m)
	udevKnows(t, m)
	m.Run(`
		since() { systemctl show -p ActiveEnterTimestampMonotonic srv-one.mount; }
		before=$(since)
		for disk in one two; do
			keeper=$(systemctl show -p MainPID --value nbdcrypt-attach@$disk)
			kill -9 $keeper
			for i in $(seq 200); do
				now=$(systemctl show -p MainPID --value nbdcrypt-attach@$disk)
				! systemctl is-active -q nbdcrypt-attach@$disk || [ $now = $keeper ] || break
				sleep 0.2
			done
			[ $i -lt 200 ] || { systemctl status nbdcrypt-attach@$disk; tail -n 20 /var/log/nbdcrypt*; exit 1; }
			! nbdcrypt disk show $disk 2>&1 | grep 'has no keeper'
			grep 'lost its keeper, and has one again' /var/log/nbdcrypt-attach@$disk.service
			head -c 3000000 /dev/urandom >/srv/$disk/file
		done
		[ "$(since)" = "$before" ] || { echo "it was mounted anew"; exit 1; }
		sync; sha256sum /srv/*/file >/run/sums
		kill -9 $(systemctl show -p MainPID --value nbdcrypt); until nbdcrypt status >/dev/null 2>&1; do sleep 0.2; done
		echo 3 >/proc/sys/vm/drop_caches; sha256sum -c /run/sums
		systemctl stop srv-one.mount nbdcrypt-attach@one nbdcrypt-attach@two; [ -z "$(grep /srv/ /proc/mounts)" ]; [ ! -e /sys/block/nbd0/pid ]; [ ! -e /sys/block/nbd1/pid ]
		udevadm settle; [ ! -e /dev/nbdcrypt ]`)
}

// udevKnows: each disk is found by its id, with the properties that the rules give it; a device that is not ours is not.
func udevKnows(t *testing.T, m *machine.Machine) {
	t.Helper()
	for _, name := range []string{"one", "two"} {
		d := get[control.Disk](t, m, "disk show "+name)
		link := "/dev/nbdcrypt/" + d.ID
		m.Run("udevadm settle; ls -l /dev/nbdcrypt; [ $(readlink -f " + link + ") = " + *d.Attachments[0].Device + " ]")
		out := m.Run("udevadm info " + link)
		for _, want := range []string{"E: UDISKS_IGNORE=1", "E: NBDCRYPT_DISK=" + d.ID, "L: -100", "S: disk/by-label/" + name} {
			if !strings.Contains(out, want) {
				t.Errorf("udev does not say %q of disk %s:\n%s", want, name, out)
			}
		}
	}
	m.Run("[ $(ls /dev/nbdcrypt | wc -l) = 2 ]")
}
