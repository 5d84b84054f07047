//go:build vm

package vmtest

import (
	"testing"

	"nbdcrypt/pkg/control"
)

// Daemons that are killed one after the other, each while it lends a server its disks anew, don't end it: what they attached in vain is not somebody else's.
func TestRuleA22_DaemonsKilledWhileTheyLend(t *testing.T) {
	t.Parallel()
	h, image := newHost(t), serverImage(t)
	h.do("image", "create", "system", "--from-file", image, "--key", "servers")
	create := []string{"server", "create", "web", "--image", "system", "--memory", "192M", "--network", "none"}
	for range 12 { // lending them takes long enough to be met
		create = append(create, "--data-disk", "size=8M,key=servers")
	}
	h.do(create...)
	h.start("web")
	c := openConsole(t, h.dir, "web")
	c.booted("web")
	met := 0
	for range 4 {
		h.kill()
		h.serve()
		var status string
		until(t, "the daemon lends the disks", func() bool { status = h.server("web").Status; return status != control.ServerStopped })
		if status == control.ServerStarting {
			met++
		}
	}
	until(t, "the server runs", func() bool { return h.server("web").Status == control.ServerRunning })
	t.Logf("%d of 4 daemons were killed while they lent the disks", met)
	c.run("echo words | dd of=/dev/vdm bs=512 conv=sync,fsync")
	h.do("server", "stop", "web")
	c.gone()
}
