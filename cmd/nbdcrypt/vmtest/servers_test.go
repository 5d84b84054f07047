//go:build vm

package vmtest

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"nbdcrypt/pkg/control"
)

// A server of an encrypted image has an encrypted system disk, whatever is asked for, boots from it and writes to a plain and an encrypted data disk. Without the image's key it does
// not start, and nothing stays attached. It outlives its daemon, and however QEMU or what runs it ends, the disks are detached.
func TestRuleA24_A34_A36_A22_ServerOfAnEncryptedImage(t *testing.T) {
	t.Parallel()
	h, image := newHost(t), serverImage(t)
	h.do("key", "create", "data")
	h.do("image", "create", "system", "--from-file", image, "--key", "servers")
	made := []string{"server", "create", "web", "--image", "system", "--memory", "192M", "--network", "none", "--data-disk", "size=64M,plain", "--data-disk", "size=64M,key=data"}
	h.refused(2, []string{"system"}, append(made, "--plain")...)
	h.refused(2, []string{"system"}, append(made, "--key", "data")...)
	if disks := ask[[]control.Disk](h, "disk", "list"); len(disks) > 0 {
		t.Fatalf("of a server that was refused %v is left", disks)
	}
	h.do(made...)
	wantDisks(t, h.server("web").Disks, "system servers", "data", "data data")
	web := h.start("web")[0]
	c := openConsole(t, h.dir, "web")
	c.booted("web")
	for i, device := range []string{"vdb", "vdc"} {
		if serial := c.run("cat /sys/block/" + device + "/serial"); serial != web.Disks[i+1].ID[:20] {
			t.Errorf("%s has the serial number %q, not the beginning of %s", device, serial, web.Disks[i+1].ID)
		}
		c.run(fmt.Sprintf("yes 'words of %s' | head -c 262144 | dd of=/dev/%s bs=128k conv=fsync iflag=fullblock", device, device))
	}
	plug(t, h, c)
	daemonGoes(t, h, c)
	h.do("server", "stop", "web")
	c.gone()
	if !strings.Contains(c.text(), "the power button was pressed") {
		t.Error("the guest was not asked to shut down")
	}
	h.detached("web")
	inNoFile(t, h)
	refusedWithoutKey(t, h)
	endsOfRuns(t, h)
}

// wantDisks wants a server's disks to be of a kind, each under a key or, where none is said, plain.
func wantDisks(t *testing.T, disks []control.ServerDisk, want ...string) {
	t.Helper()
	var got []string
	for _, d := range disks {
		text := d.Role
		if d.Encrypted && d.Key != nil {
			text += " " + d.Key.Alias
		}
		got = append(got, text)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the disks are %q, not %q", got, want)
	}
}

// plug gives the running server one more disk, which it writes to, and takes that away.
func plug(t *testing.T, h *host, c *console) {
	t.Helper()
	h.do("disk", "create", "extra", "--size", "64M", "--key", "data")
	h.do("server", "attach", "web", "extra")
	c.run("until [ -b /dev/vdd ]; do sleep 0.1; done; yes 'words of vdd' | head -c 262144 | dd of=/dev/vdd bs=128k conv=fsync iflag=fullblock")
	h.refused(6, []string{"web"}, "detach", "extra")
	h.refused(6, []string{"web"}, "detach", "web-system")
	h.refused(6, []string{"web"}, "server", "detach", "web", "web-system")
	h.refused(6, []string{"web"}, "disk", "delete", "extra", "--yes")
	h.do("server", "detach", "web", "extra")
	c.run("while [ -b /dev/vdd ]; do sleep 0.1; done")
	if disk := ask[control.Disk](h, "disk", "show", "extra"); disk.Status != "available" || len(disk.Attachments) > 0 {
		t.Errorf("the disk that was unplugged is %s", disk.Status)
	}
	h.do("server", "attach", "web", "extra")
	if words := c.run("until [ -b /dev/vdd ]; do sleep 0.1; done; head -c 13 /dev/vdd"); words != "words of vdd" {
		t.Errorf("plugged in again, the disk holds %q", words)
	}
	h.do("server", "detach", "web", "extra")
}

// daemonGoes kills the daemon in the middle of what the guest does; with the next daemon that goes on.
func daemonGoes(t *testing.T, h *host, c *console) {
	t.Helper()
	h.kill()
	n := c.ask("yes 'words of vdc' | head -c 524288 | dd of=/dev/vdc bs=128k conv=fsync iflag=fullblock && dd if=/dev/vdc bs=512k count=1 iflag=direct | sha256sum")
	h.serve()
	want := tool(t, "sh", "-c", "yes 'words of vdc' | head -c 524288 | sha256sum")
	if sum := c.answer(n); !strings.Contains(sum, strings.Fields(want)[0]) {
		t.Errorf("across the restart of the daemon the guest reads %q, not %q", sum, want)
	}
	until(t, "the server runs with the next daemon", func() bool { return h.server("web").Status == control.ServerRunning })
}

// inNoFile looks for what was read and written: it is in the plain disk's files alone.
func inNoFile(t *testing.T, h *host) {
	t.Helper()
	for _, words := range []string{bootWord(), "guest.server=", "words of vdc", "words of vdd"} {
		if found := containing(t, h.dir+"/state", words); found != "" {
			t.Errorf("%q is in %s", words, found)
		}
	}
	if containing(t, h.dir+"/state", "words of vdb") == "" {
		t.Error("the search does not even find what is on the plain disk")
	}
}

// refusedWithoutKey tries to start with a key disabled that one of the disks is under.
func refusedWithoutKey(t *testing.T, h *host) {
	t.Helper()
	for key, disk := range map[string]string{"servers": "web-system", "data": "web-data-2"} {
		h.do("key", "disable", key)
		h.refused(4, []string{disk, key, "Disabled"}, "server", "start", "web")
		h.detached("web")
		if key == "servers" {
			h.refused(4, []string{"servers", "Disabled"}, "server", "create", "other", "--image", "system")
		}
		h.do("key", "enable", key)
	}
}

// endsOfRuns has the server boot again, and find what it wrote; then kills QEMU, and then what runs it.
func endsOfRuns(t *testing.T, h *host) {
	t.Helper()
	web := h.start("web")[0]
	c := openConsole(t, h.dir, "web")
	c.booted("web")
	for _, device := range []string{"vdb", "vdc"} {
		if words := c.run("head -c 13 /dev/" + device); words != "words of "+device {
			t.Errorf("%s has %q after the restart", device, words)
		}
	}
	check(t, syscall.Kill(web.PID, syscall.SIGKILL))
	c.gone()
	if ended := h.stopped("web").Ended; ended == "" {
		t.Error("it is not said why the run ended")
	}
	web = h.start("web")[0]
	check(t, syscall.Kill(runnerOf(t, web.PID), syscall.SIGKILL))
	until(t, "QEMU has ended with what ran it", func() bool { return !alive(web.PID) })
	h.stopped("web")
	if _, err := os.Stat(web.Console); err == nil {
		h.start("web") // what the killed one left is in nobody's way
		h.do("server", "stop", "web", "--force")
		h.detached("web")
	}
}
