//go:build vm

package vmtest

import (
	"fmt"
	"strings"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/vmtest/machine"
)

// flushers fails where a thread of the daemon is not one that cleans pages for others (PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE), or still has the
// capability that it takes to become one (CAP_SYS_RESOURCE).
const flushers = `
	for thread in /proc/$(cat /run/daemon.pid)/task/*; do
		flags=$(sed 's/.*) //' $thread/stat | cut -d ' ' -f 7)
		[ $((flags & 0x180000)) = $((0x180000)) ]
		[ $((0x$(sed -n 's/^CapEff:\s*//p' $thread/status) & 1 << 24)) = 0 ]
	done`

// A file system on a device takes more dirty pages than the kernel allows, and then more than there is memory for, on the machine of the daemon that has to
// clean them: that comes to an end, nothing is killed for it, and all is there.
func TestMemoryPressure(t *testing.T) {
	t.Parallel()
	m := withPool(t, "1G", machine.Options{Memory: "256M"})
	serve(m, "")
	const piece, few, many = 4 << 20, 4, 16
	m.Run(fmt.Sprintf(`nbdcrypt grant create
		nbdcrypt disk create d --size 128M; nbdcrypt attach d --device auto 2>&1
		mkfs.ext4 -q /dev/nbd0; mkdir -p /mnt/d; mount /dev/nbd0 /mnt/d
		head -c %d /dev/zero >/dev/shm/ballast
		head -c %d /dev/urandom >/run/piece
		printf '#!/bin/sh\nfor i in $(seq $1); do cat /run/piece; done\n' >/bin/content; chmod 755 /bin/content`, 48<<20, piece))
	m.Run(flushers)
	m.Run(fmt.Sprintf(`echo 1048576 >/proc/sys/vm/dirty_background_bytes; echo 2097152 >/proc/sys/vm/dirty_bytes
		content %d >/mnt/d/few; sync
		echo 10 >/proc/sys/vm/dirty_background_ratio; echo 20 >/proc/sys/vm/dirty_ratio
		[ $(awk '/^MemAvailable/ {print $2}' /proc/meminfo) -lt %d ]
		content %d >/mnt/d/many; sync`, few, many*piece>>10, many))
	m.Run(fmt.Sprintf(`umount /mnt/d; nbdcrypt detach d; nbdcrypt attach d --device auto; mount /dev/nbd0 /mnt/d
		content %d | cmp - /mnt/d/few; content %d | cmp - /mnt/d/many
		umount /mnt/d; nbdcrypt detach d`, few, many))
	tally(t, "more dirty pages than there may be, or is memory for", 1, (few+many)*piece, 0)
	if out := m.Run("dmesg"); strings.Contains(out, "oom-kill") || strings.Contains(out, "I/O error") || strings.Contains(out, "timed out") {
		t.Errorf("the kernel says:\n%s", out)
	}
}
