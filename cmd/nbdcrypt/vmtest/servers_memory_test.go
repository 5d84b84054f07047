//go:build vm

package vmtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"nbdcrypt/pkg/control"
)

// smallImage imports an encrypted image that nothing boots from.
func smallImage(t *testing.T, h *host) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	check(t, os.WriteFile(path, []byte(strings.Repeat("no system at all ", 1<<16)[:1<<20]), 0o600))
	h.do("image", "create", "small", "--from-file", path, "--key", "servers")
}

// A server that wants more memory than it may have does not start, and nothing stays attached; with less it does.
func TestServerWithoutMemory(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	smallImage(t, h)
	h.do("server", "create", "large", "--image", "small", "--memory", "64G", "--network", "none", "--data-disk", "size=1M")
	args := []string{"server", "start", "large"}
	inside := h.command(args...)
	cmd := exec.Command("sh", "-c", `ulimit -v 16000000; exec "$0" "$@"`)
	cmd.Args, cmd.Env = append(cmd.Args, inside.Args...), inside.Env
	out, err := cmd.CombinedOutput()
	h.wantRefusal(out, err, 1, []string{"large", "memory"}, args)
	h.stopped("large")
	h.do("server", "delete", "large", "--yes")
}

// A scaling that runs out of room makes nothing, says how far it was, and goes through once there is room.
func TestScalingWithoutRoom(t *testing.T) {
	t.Parallel()
	pool := smallPool(t, "100M")
	h := newHost(t, "--pool", pool)
	smallImage(t, h)
	h.do("scaling", "config", "create", "config", "--from-image", "small", "--data-disk", "size=1M,key=servers")
	h.do("scaling", "group", "create", "group", "--config", "config", "--min", "1", "--max", "20")
	before := len(ask[[]control.Disk](h, "disk", "list"))
	filler := filepath.Join(pool, "filler")
	fill(t, pool, filler, 100<<10)
	h.refused(1, []string{"group", "room"}, "scaling", "group", "scale", "group", "20")
	if group := ask[control.ScalingGroup](h, "scaling", "group", "show", "group"); group.Size != 1 || len(group.Members) != 1 {
		t.Errorf("after a scaling that failed the group has %+v", group)
	}
	if servers, disks := ask[[]control.Server](h, "server", "list"), ask[[]control.Disk](h, "disk", "list"); len(servers) != 1 || len(disks) != before {
		t.Errorf("after a scaling that failed there are %d servers and %d disks", len(servers), len(disks))
	}
	check(t, os.Remove(filler))
	if group := ask[control.ScalingGroup](h, "scaling", "group", "scale", "group", "20"); group.Size != 20 {
		t.Errorf("with room the group has %d", group.Size)
	}
	h.do("check")
}

// smallPool is a directory with a file system of its own, of that size.
func smallPool(t *testing.T, size string) string {
	t.Helper()
	pool := t.TempDir()
	check(t, syscall.Mount("tmpfs", pool, "tmpfs", 0, "size="+size+",mode=0700"))
	t.Cleanup(func() { check(t, syscall.Unmount(pool, 0)) })
	return pool
}

// fill leaves as much room in a file system as said.
func fill(t *testing.T, dir, file string, leave int64) {
	t.Helper()
	free := strings.Fields(tool(t, "df", "-k", "--output=avail", dir))
	var kib int64
	if _, err := fmt.Sscan(free[len(free)-1], &kib); err != nil || kib<<10 < leave {
		t.Fatalf("there is no room to begin with: %q, %v", free, err)
	}
	check(t, os.WriteFile(file, make([]byte, kib<<10-leave), 0o600))
}

// Of members that are started as they are made one is killed as it comes up, as the kernel does where memory is short: it is named, its disks are detached, the others run, and it can be
// started again.
func TestMemberIsKilledAtItsStart(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	smallImage(t, h)
	h.do("scaling", "config", "create", "config", "--from-image", "small", "--memory", "64M", "--network", "none")
	h.qemu(`case "$*" in *serial=group-2*) kill -9 $$ ;; esac`)
	h.refused(1, []string{"group-2"}, "scaling", "group", "create", "group", "--config", "config", "--min", "3", "--max", "3", "--start")
	h.stopped("group-2")
	h.run("group-1", "group-3")
	h.qemu("")
	h.start("group-2")
	h.do("server", "stop", "--force", "group-1", "group-2", "group-3") // nothing in there hears the power button
	h.do("scaling", "group", "delete", "group", "--yes")
	if left := ask[[]control.Server](h, "server", "list"); len(left) > 0 {
		t.Errorf("of the group %+v is left", left)
	}
}
