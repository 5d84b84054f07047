//go:build vm && long

package vmtest

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"nbdcrypt/pkg/control"
)

// A guest writes and syncs block after block while its daemon is killed again and again, now and then before the server is back at all: it misses nothing of it, and finds all of it
// when it has booted again.
func TestRuleA22_ServerOutlivesItsDaemons(t *testing.T) {
	t.Parallel()
	h, image := newHost(t), serverImage(t)
	h.do("image", "create", "system", "--from-file", image, "--key", "servers")
	h.do("server", "create", "web", "--image", "system", "--memory", "192M", "--network", "none", "--data-disk", "size=256M,key=servers")
	h.start("web")
	c := openConsole(t, h.dir, "web")
	c.booted("web")
	c.run(`(i=0; while [ ! -e /tmp/enough ]; do echo "block $i" | dd of=/dev/vdb bs=4096 seek=$i conv=notrunc,sync,fsync 2>/tmp/why || break; i=$((i+1)); echo $i >/tmp/done; done; touch /tmp/ended) &`)
	for range *kills {
		time.Sleep(rand.N(700 * time.Millisecond))
		h.kill()
		h.serve()
		if rand.N(3) > 0 {
			until(t, "the server runs with the next daemon", func() bool { return h.server("web").Status == control.ServerRunning })
		}
	}
	c.run("touch /tmp/enough; until [ -e /tmp/ended ]; do sleep 0.1; done")
	blocks, err := strconv.Atoi(c.run("cat /tmp/done"))
	check(t, err)
	t.Logf("%d kills, %d blocks", *kills, blocks)
	if said := c.run("cat /tmp/enough /tmp/why | grep -i error; true"); said != "" || blocks < *kills/2 {
		t.Errorf("the guest has written %d blocks, and says %q", blocks, said)
	}
	wantBlocks(t, c, blocks)
	h.do("server", "stop", "web")
	c.gone()
	h.start("web")
	c = openConsole(t, h.dir, "web")
	c.booted("web")
	wantBlocks(t, c, blocks)
	h.do("server", "stop", "web", "--force")
	h.do("check")
}

// wantBlocks has the guest read what it wrote.
func wantBlocks(t *testing.T, c *console, blocks int) {
	t.Helper()
	want := sha256.New()
	for i := range blocks {
		block := make([]byte, 4096)
		copy(block, fmt.Sprintf("block %d\n", i))
		want.Write(block)
	}
	sum := c.run(fmt.Sprintf("dd if=/dev/vdb bs=4096 count=%d iflag=direct 2>/dev/null | sha256sum", blocks))
	if got := strings.Fields(sum)[0]; got != fmt.Sprintf("%x", want.Sum(nil)) {
		t.Errorf("the guest does not read the %d blocks that it wrote", blocks)
	}
}
