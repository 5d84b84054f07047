//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"nbdcrypt/pkg/control"
)

// TestFuse: a user without root gets his disk as a file, and what he writes there is in the disk. The detach takes the file away, but not
// while he uses it, unless it is forced.
func TestFuse(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.do("role", "grant", "games", "user")
	d.create("shown", "16M", "--encrypted")
	dir := tempDir(t)
	check(t, os.Chown(dir, dataUser, dataUser))
	var at control.Attached
	check(t, json.Unmarshal([]byte(d.by(dataUser, 0, "attach", "shown", "--fuse", dir)), &at))
	if at.Device != nil || at.Mount != dir {
		t.Errorf("attached %+v", at)
	}
	if shown := d.show("shown").Attachments[0]; shown.Mount != dir || shown.Device != nil {
		t.Errorf("shown %+v", shown)
	}
	text := bytes.Repeat([]byte("as he wrote it.\n"), 1024) // whole sectors, as NBD wants them
	end := heldOpen(t, dir+"/shown", text)
	if said := d.by(dataUser, 6, "detach", "shown"); !strings.Contains(said, dir+" can't be unmounted") || len(d.show("shown").Attachments) != 1 {
		t.Errorf("detached under a file that is open: %s", said)
	}
	end()
	d.by(dataUser, 0, "detach", "shown")
	wantUnmounted(t, dir)
	wantText := func() {
		t.Helper()
		if got := dial(t, d.attach("shown")); got != nil {
			expect(t, got, text, 0)
		}
		d.do("detach", "shown")
	}
	wantText()
	d.by(dataUser, 0, "attach", "shown", "--fuse", dir)
	end = heldOpen(t, dir+"/shown", text)
	d.by(dataUser, 0, "detach", "shown", "--force")
	wantUnmounted(t, dir)
	end()
	wantText()
}

// heldOpen has the user write a text into a file, and keep it open until end.
func heldOpen(t *testing.T, file string, text []byte) (end func()) {
	t.Helper()
	cmd := as(dataUser, exec.Command("sh", "-c", `exec 3<>"$0"; head -c "$1" >&3 && echo written; read _`, file, strconv.Itoa(len(text))))
	in, err := cmd.StdinPipe()
	check(t, err)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	_, err = in.Write(text)
	check(t, err)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "written\n" {
		t.Fatalf("%q, %v", line, err)
	}
	return func() {
		in.Close()
		_ = cmd.Wait() // read has met the end
	}
}

// TestFuseOfAnother: root's detach of somebody's disk unmounts what that one has mounted for it, and nothing that he only names.
func TestFuseOfAnother(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.do("role", "grant", "games", "user")
	d.create("his", "1M")
	d.create("roots", "1M")
	mine, his := tempDir(t), tempDir(t)
	check(t, os.Chown(his, dataUser, dataUser))
	d.do("attach", "roots", "--fuse", mine)
	curl := as(dataUser, exec.Command("curl", "-sS", "--fail-with-body", "--unix-socket", d.run+"/control.sock", "-d", `{"mount":"`+mine+`"}`, "http://x/v1/disks/his/attach"))
	if r := execute(t, curl); r.code != 0 {
		t.Fatal(r)
	}
	d.do("detach", "his")
	if !mountedAt(t, mine) {
		t.Error("root's own directory was unmounted")
	}
	d.by(dataUser, 0, "attach", "his", "--fuse", his)
	d.do("detach", "his")
	wantUnmounted(t, his)
	d.do("detach", "roots")
	wantUnmounted(t, mine)
}

// TestFuseFails: where the file can't be shown, nothing stays attached, and who asked is told why.
func TestFuseFails(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.create("d", "1M")
	d.refused(3, "attach", "d", "--fuse", d.dir+"/none")
	d.refused(2, "attach", "d", "--fuse", d.log)
	d.env = append(d.env, "PATH="+tempDir(t))
	if e := d.refused(1, "attach", "d", "--fuse", d.dir); !strings.Contains(e.Hint, "libnbd-bin") {
		t.Errorf("%+v", e)
	}
	d.env = nil
	d.do("role", "grant", "games", "user")
	closed := tempDir(t) // root's: who can't write there can't mount there
	if said := d.by(dataUser, 1, "attach", "d", "--fuse", closed); !strings.Contains(said, "fusermount") {
		t.Errorf("%s", said)
	}
	if at := d.show("d").Attachments; len(at) != 0 {
		t.Errorf("attached: %+v", at)
	}
}

// TestDeviceWithoutModule: where the kernel has no such devices, attach says so, by way of the keeper that it starts, and attaches nothing.
func TestDeviceWithoutModule(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/sys/block/nbd0"); err == nil || exec.Command("modprobe", "-n", "nbd").Run() == nil {
		t.Log("this kernel has the module")
		return
	}
	d := startDaemon(t)
	d.create("d", "1M")
	if e := d.refused(1, "attach", "d", "--device", "auto"); !strings.Contains(e.Message, "nbd") || e.Hint == "" {
		t.Errorf("%+v", e)
	}
	if at := d.show("d").Attachments; len(at) != 0 {
		t.Errorf("attached: %+v", at)
	}
	d.by(dataUser, 5, "attach", "d", "--device", "auto")
}

func mountedAt(t *testing.T, dir string) bool {
	return strings.Contains(string(readFile(t, "/proc/self/mounts")), " "+dir+" ")
}

func wantUnmounted(t *testing.T, dir string) {
	t.Helper()
	if mountedAt(t, dir) {
		t.Errorf("%s is mounted", dir)
	}
}
