//go:build vm

package vmtest

import (
	"fmt"
	"strings"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/vmtest/machine"
)

// attach --device makes devices of disks, with several connections and, in the long set, with one. File systems on them survive a detach, the kernel knows all that the
// server can do and it knows of, and what is mounted is not taken away.
func TestDevice(t *testing.T) {
	t.Parallel()
	m := withPool(t, "2G", machine.Options{})
	serve(m, "")
	m.Run("nbdcrypt grant create")
	ways := []way{{disk: "four", kinds: "ext4", attach: "--connections=4"}}
	if long {
		ways = append(ways, way{disk: "one", kinds: "ext4 xfs", create: "--sector-size=4096"}, way{disk: "xfs", kinds: "ext4 xfs", attach: "--connections=2"})
	}
	for _, as := range ways {
		m.Run(fmt.Sprintf("nbdcrypt disk create %s --size 640M --encrypted %s", as.disk, as.create))
		useFilesystems(t, m, as.disk, as.kinds, "nbdcrypt attach "+as.disk+" --device auto "+as.attach+" >/run/attached\n"+toldTheKernel+"echo /dev/nbd0", "nbdcrypt detach "+as.disk)
	}
	refusesWhatIsInUse(t, m)
	if out := m.Run("nbdcrypt check; kill $(cat /run/daemon.pid); dmesg"); strings.Contains(out, "I/O error") {
		t.Errorf("check and the kernel say:\n%s", out)
	}
}

// toldTheKernel fails where the kernel does not use what the server has told: a cache to flush, FUA, TRIM, and, since Linux 6.12, zeros.
const toldTheKernel = `
	cd /sys/block/nbd0/queue
	told="$(cat write_cache fua); $(($(cat discard_max_bytes) > 0))"
	[ "$told" = "$(printf 'write back\n1; 1')" ] || { echo "the kernel was told: $told"; exit 1; }
	zeros=0
	[ "$(printf '6.12\n%s\n' "$(uname -r)" | sort -V | head -n 1)" != 6.12 ] || zeros=1
	[ $(($(cat write_zeroes_max_bytes) > 0)) = $zeros ] || { echo "zeros: $(cat write_zeroes_max_bytes)"; exit 1; }
	cd /
`

// refusesWhatIsInUse holds a device in each way that detach tells of.
func refusesWhatIsInUse(t *testing.T, m *machine.Machine) {
	t.Helper()
	m.Run("nbdcrypt attach four --device /dev/nbd3; mkdir -p /mnt/a; until [ -b /dev/nbd3p1 ]; do sleep 0.1; done")
	for _, use := range []struct{ begin, end, want string }{
		{"mount /dev/nbd3p1 /mnt/a", "umount /mnt/a", "/dev/nbd3p1 is mounted at /mnt/a"},
		{"losetup /dev/loop0 /dev/nbd3p1", "losetup -d /dev/loop0", "/dev/nbd3p1 is below /dev/loop0"},
		{"dmsetup create held --table '0 8 linear /dev/nbd3p1 0'", "dmsetup remove held", "/dev/nbd3p1 is part of /dev/dm-0 (held)"},
		{hiddenMount, "kill $(cat /run/hidden)", "/dev/nbd3 is held exclusively"},
	} {
		m.Run(use.begin)
		out, code, err := m.Try(t.Context(), "nbdcrypt detach four")
		if code != 6 || err != nil || !strings.Contains(out, use.want) {
			t.Errorf("%s: detach ended with %d, %v:\n%s", use.begin, code, err, out)
		}
		m.Run(use.end)
	}
	m.Run("until nbdcrypt detach four 2>/run/why; do grep -q exclusively /run/why; sleep 0.1; done; [ ! -e /sys/block/nbd3/pid ]")
}

// hiddenMount is one that only a process with a mount namespace of its own sees.
const hiddenMount = `unshare -m sh -c 'mount /dev/nbd3p1 /mnt/a; echo $$ >/run/hidden; exec sleep 1000' &
	until [ -s /run/hidden ]; do sleep 0.05; done`
