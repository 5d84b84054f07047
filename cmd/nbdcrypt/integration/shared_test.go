//go:build integration

package integration

import (
	"encoding/json"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"nbdcrypt/pkg/control"
)

// TestRuleB14_SharedBetweenUsers: two users attach one disk, and write to it at a time; the detach of one disconnects that user's clients and no
// others; a crash ends all attachments, and loses nothing that was flushed.
func TestRuleB14_SharedBetweenUsers(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	for _, uid := range []int{dataUser, guest} {
		d.do("role", "grant", strconv.Itoa(uid), "user")
	}
	d.create("quorum", "4M", "--encrypted", "--shared")
	var at [2]control.Attached
	for i, uid := range []int{dataUser, guest} {
		check(t, json.Unmarshal([]byte(d.by(uid, 0, "attach", "quorum")), &at[i]))
	}
	uri := at[0].URI
	writes := func(uid int, what string, off int) {
		t.Helper()
		r := execute(t, as(uid, exec.Command("nbdsh", "-u", uri, "-c", "h.pwrite(b'"+what+"' * 512, "+strconv.Itoa(off)+"); h.flush()")))
		if r.code != 0 {
			t.Fatalf("%d writes: %s", uid, r.stderr)
		}
	}
	writes(dataUser, "a", 0)
	writes(guest, "b", 512)

	// The guest stays connected until its attachment ends; the other user's client does not notice.
	stay := "import time\nprint('in', flush=True)\nwhile True:\n  h.pread(512, 0)\n  time.sleep(0.05)\n"
	guests, users := as(guest, exec.Command("nbdsh", "-u", uri, "-c", stay)), as(dataUser, exec.Command("nbdsh", "-u", uri, "-c", stay))
	ended := map[*exec.Cmd]chan error{}
	for _, cmd := range []*exec.Cmd{guests, users} {
		check(t, cmd.Start())
		done := make(chan error, 1)
		ended[cmd] = done
		go func() { done <- cmd.Wait() }()
		t.Cleanup(func() { _ = cmd.Process.Kill() })
	}
	waitFor(t, "both are connected", func() bool { return d.show("quorum").Attachments[0].Clients == 2 })
	var gone control.Detached
	check(t, json.Unmarshal([]byte(d.by(guest, 0, "detach", "quorum")), &gone))
	if gone.Attachment != at[1].Attachment || gone.Left != 1 || gone.Clients != 1 {
		t.Errorf("detached: %+v of %+v", gone, at)
	}
	select {
	case <-ended[guests]:
	case <-time.After(20 * time.Second):
		t.Error("who has detached is still connected")
	}
	if d.reaches(guest, uri) || !d.reaches(dataUser, uri) {
		t.Error("it opens for others than those who have it attached")
	}
	select {
	case err := <-ended[users]:
		t.Errorf("the other user's client has ended: %v", err)
	default:
	}
	d.by(guest, 3, "detach", "quorum") // it has none any more

	d.by(guest, 0, "attach", "quorum")
	d.kill()
	d.start()
	disk := d.show("quorum")
	if disk.Status != "available" || len(disk.Attachments) != 0 || len(disk.Warnings) != 0 {
		t.Errorf("after the crash: %s, %+v, %v", disk.Status, disk.Attachments, disk.Warnings)
	}
	for range 16 {
		uri = d.attach("quorum")
	}
	if said := d.refused(6, "attach", "quorum"); !strings.Contains(said.Message, "16") {
		t.Errorf("the 17th: %s", said.Message)
	}
	tool(t, "nbdsh", "-u", uri, "-c", "assert h.pread(1024, 0) == b'a' * 512 + b'b' * 512")
	if fresh := d.show("quorum"); len(fresh.Attachments) != 16 {
		t.Errorf("%d attachments", len(fresh.Attachments))
	}
	d.stop()
	d.start()
	if disk := d.show("quorum"); disk.Status != "available" || len(disk.Warnings) != 0 {
		t.Errorf("after a stop: %s, %v", disk.Status, disk.Warnings)
	}
}
