package cli

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// withDisk is a fake daemon with a disk.
func withDisk(t *testing.T) *fake {
	t.Helper()
	f := serveFake(t)
	for _, line := range []string{"grant create", "key create k", "disk create d --size 1M --sector-size 4096 --key k"} {
		if got := try(t, f.run, "", strings.Fields(line)...); got.code != 0 {
			t.Fatalf("%s: %+v", line, got)
		}
	}
	return f
}

// TestAttachDevice: the disk is attached under the device's name, connected as it is asked for, mounted, and kept.
func TestAttachDevice(t *testing.T) {
	f, m := withDisk(t), newMachine(0)
	m.fails["keep"] = refusal.New(refusal.KeyForbids, "enable it", "key k is Disabled")
	got := m.on(t, f, "", "attach", "d", "--device", "auto", "--foreground", "--mount", "/srv/d", "--connections", "3", "--timeout", "9s", "--reconnect", "1m")
	if got.code != int(refusal.KeyForbids) || !strings.Contains(got.out, "device: /dev/nbd0\nmounted at: /srv/d\n") || !strings.Contains(got.out, "nbdcrypt detach d\n") {
		t.Errorf("%+v", got)
	}
	wantSteps(t, "steps", m.steps, "point /srv/d", "connect /dev/nbd0", "mount /dev/nbd0/srv/dfalse", "keep /dev/nbd0")
	c := m.config
	if c.Export != "d" || !strings.HasSuffix(c.Socket, control.SocketNBD) || c.Connections != 3 || c.Timeout != 9*time.Second || c.Reconnect != time.Minute || c.BlockSize != 4096 {
		t.Errorf("connected %+v", c)
	}
	d, _ := f.disk("d")
	if at := d.Attachments[0]; at.Device == nil || *at.Device != "/dev/nbd0" || at.Mount != "/srv/d" {
		t.Errorf("attached %+v", at)
	}
	if !strings.HasPrefix(c.Identifier, "nbdcrypt:"+d.ID+":") || len(c.Identifier) < len("nbdcrypt:"+d.ID+":")+16 {
		t.Errorf("called %q", c.Identifier)
	}
	if o := m.kept; o.Disk != "d" || o.How.Device != "/dev/nbd0" || o.How.Mount != "/srv/d" || o.Daemon.PID != 42 || o.At.DiskID != d.ID || o.Reconnect != time.Minute {
		t.Errorf("kept %+v", o)
	}
}

// TestAttachDeviceTaken: auto tries the next one where somebody was faster; one that was named is refused. What was attached for it is not.
func TestAttachDeviceTaken(t *testing.T) {
	f, m := withDisk(t), newMachine(0)
	m.taken = 2
	if got := m.on(t, f, "", "attach", "d", "--device", "auto", "--foreground"); got.code != 0 || !strings.Contains(got.out, "device: /dev/nbd2\n") {
		t.Errorf("%+v", got)
	}
	wantSteps(t, "auto", m.done("connect"), "connect /dev/nbd0", "connect /dev/nbd1", "connect /dev/nbd2")
	if d, _ := f.disk("d"); len(d.Attachments) != 1 || *d.Attachments[0].Device != "/dev/nbd2" {
		t.Errorf("attached %+v", d.Attachments)
	}
	f, m = withDisk(t), newMachine(0)
	m.fails["connect"] = syscall.EBUSY
	if got := m.on(t, f, "", "attach", "d", "--device", "/dev/nbd7", "--foreground"); got.code == 0 || m.kept != nil {
		t.Errorf("%+v", got)
	}
	if d, _ := f.disk("d"); len(d.Attachments) != 0 {
		t.Errorf("attached %+v", d.Attachments)
	}
}

// TestAttachDeviceFails: where a later step fails nothing of those before stays.
func TestAttachDeviceFails(t *testing.T) {
	for _, c := range []struct {
		fails string
		want  []string
	}{
		{"point", []string{"point /m"}},
		{"safe", []string{"point /m"}},
		{"connect", []string{"point /m", "connect /dev/nbd0"}},
		{"mount", []string{"point /m", "connect /dev/nbd0", "mount /dev/nbd0/mfalse", "unmount /m", "sync /dev/nbd0", "disconnect /dev/nbd0"}},
	} {
		f, m := withDisk(t), newMachine(0)
		m.fails[c.fails] = refusal.New(refusal.Busy, "wait", "that fails")
		got := m.on(t, f, "", "attach", "d", "--device", "auto", "--mount", "/m", "--foreground")
		if got.code != int(refusal.Busy) || !strings.Contains(got.err, "that fails\n  → wait") || got.out != "" {
			t.Errorf("%s: %+v", c.fails, got)
		}
		wantSteps(t, c.fails, m.steps, c.want...)
		if d, _ := f.disk("d"); len(d.Attachments) != 0 {
			t.Errorf("%s: attached %+v", c.fails, d.Attachments)
		}
	}
}

// TestKeeperEnds: what ends the keeper unmounts, disconnects and detaches; a refusal keeps all of it; a disk that could not be attached again
// stays attached, since nobody is there to say yes.
func TestKeeperEnds(t *testing.T) {
	attach := []string{"attach", "d", "--device", "auto", "--mount", "/m", "--foreground"}
	f, m := withDisk(t), newMachine(0)
	m.ends = true
	if got := m.on(t, f, "", attach...); got.code != 0 {
		t.Errorf("%+v", got)
	}
	wantSteps(t, "steps", m.steps, "point /m", "connect /dev/nbd0", "mount /dev/nbd0/mfalse", "unmount /m", "sync /dev/nbd0", "disconnect /dev/nbd0")
	if d, _ := f.disk("d"); len(d.Attachments) != 0 {
		t.Errorf("attached %+v", d.Attachments)
	}
	f, m = withDisk(t), newMachine(0)
	m.ends, m.users = true, []string{"/dev/nbd0 is mounted at /other"}
	if got := m.on(t, f, "", attach...); got.code != int(refusal.Busy) || !strings.Contains(got.err, "mounted at /other") || len(m.done("disconnect")) != 0 {
		t.Errorf("in use: %+v, %q", got, m.steps)
	}
	f, m = withDisk(t), newMachine(0)
	m.ends = true
	m.sync = func(device string) error { // the key becomes unusable after the attach
		_, err := f.setKeyState("k", "Disabled")
		return errors.Join(err, m.step("sync", device))
	}
	if got := m.on(t, f, "", attach...); got.code != 0 || !strings.Contains(got.err, "stays attached") || len(m.done("disconnect")) != 1 {
		t.Errorf("key disabled: %+v, %q", got, m.steps)
	}
	if d, _ := f.disk("d"); len(d.Attachments) != 1 {
		t.Errorf("attached %+v", d.Attachments)
	}
}

// TestAttachFuse: the directory is the attachment's; where it can't be shown there, nothing stays attached.
func TestAttachFuse(t *testing.T) {
	f, m := withDisk(t), newMachine(1000)
	withPrograms(t, "nbdfuse", "fusermount3")
	got := m.on(t, f, "", "attach", "d", "--fuse", "/home/u/d", "--read-only")
	if got.code != 0 || !strings.Contains(got.out, "file: /home/u/d/d\n") {
		t.Errorf("%+v", got)
	}
	wantSteps(t, "steps", m.steps, "point /home/u/d", "fuse /home/u/d dtrue")
	f, m = withDisk(t), newMachine(1000)
	m.fails["fuse"] = refusal.New(refusal.Failed, "see", "no fuse")
	if got := m.on(t, f, "", "attach", "d", "--fuse", "/home/u/d"); got.code != 1 || !strings.Contains(got.err, "no fuse") {
		t.Errorf("%+v", got)
	}
	if d, _ := f.disk("d"); len(d.Attachments) != 0 {
		t.Errorf("attached %+v", d.Attachments)
	}
	withPrograms(t)
	if got := m.on(t, f, "", "attach", "d", "--fuse", "/home/u/d"); got.code != 1 || !strings.Contains(got.err, "libnbd-bin") || len(f.asked) != 0 {
		t.Errorf("without nbdfuse: %+v", got)
	}
}

// TestAttachFlags: what does not go together is refused before anybody is asked.
func TestAttachFlags(t *testing.T) {
	f := withDisk(t)
	for line, want := range map[string]string{
		"--device=": "--device is empty", "--fuse=": "--fuse is empty", "--device auto --mount=": "--mount is empty",
		"--device /dev/sda": "auto or /dev/nbdN", "--device nbd0": "auto or /dev/nbdN", "--device /dev/nbd0p1": "auto or /dev/nbdN",
		"--device auto --fuse /m": "none of the others can be", "--mount /m": "goes with --device", "--foreground": "goes with --device",
		"--connections 2": "goes with --device", "--fuse /m --timeout 3s": "goes with --device", "--reconnect 3s": "goes with --device",
		"--device auto --connections 0": "1 to 16", "--device auto --connections 17": "1 to 16",
		"--device auto --timeout 0s": "whole seconds", "--device auto --timeout 1500ms": "whole seconds", "--device auto --reconnect -1s": "whole seconds",
	} {
		m := newMachine(0)
		got := m.on(t, f, "", append([]string{"attach", "d"}, strings.Fields(line)...)...)
		if got.code != int(refusal.Usage) || !strings.Contains(got.err, want) || len(f.asked)+len(m.steps) != 0 {
			t.Errorf("%s: %+v", line, got)
		}
	}
	m := newMachine(1000)
	if got := m.on(t, f, "", "attach", "d", "--device", "auto"); got.code != int(refusal.Denied) || !strings.Contains(got.err, "--fuse") || len(f.asked) != 0 {
		t.Errorf("not root: %+v", got)
	}
}
