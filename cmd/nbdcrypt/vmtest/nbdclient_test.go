//go:build vm

package vmtest

import (
	"fmt"
	"testing"
	"time"

	"nbdcrypt/cmd/nbdcrypt/vmtest/machine"
	"nbdcrypt/nbd/nbdtest"
)

// Debian's nbd-client makes devices of disks: over the unix socket, with four connections, and over TLS. File systems on them survive a detach,
// and the kernel knows what the server can do.
func TestNBDClient(t *testing.T) {
	t.Parallel()
	m := withPool(t, "2G", machine.Options{})
	authority := nbdtest.NewAuthority()
	m.Put("/tls/ca.pem", authority.PEM(), 0o600)
	for _, name := range []string{"server", "somebody"} {
		cert, key := nbdtest.PEM(authority.Issue(name, time.Now().Add(time.Hour)))
		m.Put("/tls/"+name+".pem", cert, 0o600)
		m.Put("/tls/"+name+".key", key, 0o600)
	}
	serve(m, "--listen=nbds://127.0.0.1:10809 --tls-cert=/tls/server.pem --tls-key=/tls/server.key --tls-ca=/tls/ca.pem")
	m.Run("nbdcrypt grant create")
	ways := []way{
		{"four", "ext4 xfs", "--encrypted --sector-size=4096", "", socket + " -b 4096 -C 4"},
		{"tls", "ext4", "--encrypted", "--allow=cert:somebody", "nbd-client localhost 10809 -N %s %s -b 512 -enable-tls -tlshostname localhost " +
			"-certfile /tls/somebody.pem -keyfile /tls/somebody.key -cacertfile /tls/ca.pem"},
	}
	if long {
		ways[1].kinds = "ext4 xfs" // nbd-client's own TLS takes long under emulation
		ways = append(ways, way{"one", "ext4 xfs", "--encrypted", "", socket + " -b 512"}, way{"plain", "ext4 xfs", "--plain", "", socket + " -b 512 -C 4"})
	}
	for i, w := range ways {
		m.Run("nbdcrypt disk create " + w.disk + " --size 640M " + w.create)
		device := fmt.Sprintf("/dev/nbd%d", i)
		connect := fmt.Sprintf("nbdcrypt attach %s %s\n"+w.connect+" 2>&1\n"+flagsOf(i)+"\necho %s", w.disk, w.attach, w.disk, device, device)
		useFilesystems(t, m, w.disk, w.kinds, connect, disconnect(i)+"\nnbdcrypt detach "+w.disk)
	}
	m.Run("nbdcrypt check\nkill $(cat /run/daemon.pid)")
}

// way is one of making a device of a disk.
type way struct{ disk, kinds, create, attach, connect string }

// socket connects the disk and the device whose names it gets.
const socket = "nbd-client -unix /run/nbdcrypt/nbd.sock -N %s %s"

// disconnect waits until the kernel is done with the device: the program that disconnects does not.
func disconnect(i int) string {
	return fmt.Sprintf("nbd-client -d /dev/nbd%d 2>&1\nuntil [ ! -e /sys/block/nbd%d/pid ]; do sleep 0.05; done", i, i)
}

// flagsOf is a script that fails where the kernel does not know that a device has a cache to flush, takes FUA and trims.
func flagsOf(i int) string {
	return fmt.Sprintf(`cd /sys/block/nbd%d/queue
		[ "$(cat write_cache fua)" = "$(printf 'write back\n1')" ] && [ "$(cat discard_max_bytes)" -gt 0 ] ||
			{ grep . write_cache fua discard_max_bytes logical_block_size; exit 1; }`, i)
}
