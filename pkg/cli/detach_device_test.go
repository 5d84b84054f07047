package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nbdcrypt/pkg/blockdev"
	"nbdcrypt/pkg/mounts"
	"nbdcrypt/pkg/refusal"
)

// connected is a fake daemon and a machine, with a disk that is connected and mounted there.
func connected(t *testing.T) (*fake, *fakeMachine) {
	t.Helper()
	f, m := withDisk(t), newMachine(0)
	if got := m.on(t, f, "", "attach", "d", "--device", "auto", "--mount", "/m", "--foreground"); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	return f, m
}

// TestDetachDevice: it asks, unmounts, writes out, disconnects, and detaches, in this order.
func TestDetachDevice(t *testing.T) {
	f, m := connected(t)
	if got := m.on(t, f, "", "detach", "d"); got.code != 0 || got.out != "d is detached; /dev/nbd0 is disconnected; 1 client was disconnected\n" {
		t.Errorf("%+v", got)
	}
	wantSteps(t, "steps", m.steps, "unmount /m", "sync /dev/nbd0", "disconnect /dev/nbd0")
	wantSteps(t, "asked", f.asks(), "d/detach?ask=true", "d/detach")
}

// TestDetachDeviceRefused: whatever refuses it, nothing after that is done, and the disk stays attached.
func TestDetachDeviceRefused(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*fake, *fakeMachine)
		code    refusal.Code
		says    string
		steps   []string
	}{
		"not root":     {func(_ *fake, m *fakeMachine) { m.uid = 1000 }, refusal.Denied, "run it as root", nil},
		"mounted":      {func(_ *fake, m *fakeMachine) { m.users = []string{"/dev/nbd0 is mounted at /x"} }, refusal.Busy, "mounted at /x", []string{"unmount /m"}},
		"cant unmount": {func(_ *fake, m *fakeMachine) { m.fails["unmount"] = refusal.New(refusal.Busy, "h", "target is busy") }, refusal.Busy, "busy", []string{"unmount /m"}},
		"cant flush":   {func(_ *fake, m *fakeMachine) { m.fails["sync"] = errors.New("I/O error") }, refusal.Failed, "I/O error", []string{"unmount /m", "sync /dev/nbd0"}},
		"key":          {func(f *fake, _ *fakeMachine) { _, _ = f.setKeyState("k", "Disabled") }, refusal.Confirm, "k is Disabled", nil},
	} {
		f, m := connected(t)
		c.prepare(f, m)
		got := m.on(t, f, "", "detach", "d")
		if got.code != int(c.code) || !strings.Contains(got.err, c.says) {
			t.Errorf("%s: %+v", name, got)
		}
		wantSteps(t, name, m.steps, c.steps...)
		if d, _ := f.disk("d"); len(d.Attachments) != 1 {
			t.Errorf("%s: it is detached", name)
		}
	}
}

// TestDetachDeviceForced: force goes on over what refuses, and says so.
func TestDetachDeviceForced(t *testing.T) {
	f, m := connected(t)
	m.users = []string{"/dev/nbd0 is mounted at /x"}
	m.fails["unmount"], m.fails["sync"] = errors.New("target is busy"), errors.New("I/O error")
	got := m.on(t, f, "", "detach", "d", "--force")
	if got.code != 0 || strings.Count(got.err, "warning: forced: ") != 3 || !strings.Contains(got.err, "mounted at /x") {
		t.Errorf("%+v", got)
	}
	wantSteps(t, "steps", m.steps, "unmount /m", "sync /dev/nbd0", "disconnect /dev/nbd0")
	if d, _ := f.disk("d"); len(d.Attachments) != 0 {
		t.Error("it is attached")
	}
}

// TestDetachLeavesOthersAlone: a device that is somebody else's by now is not touched, nor is what else is mounted at the directory.
func TestDetachLeavesOthersAlone(t *testing.T) {
	f, m := connected(t)
	m.config.Identifier = "nbdcrypt:another"
	if got := m.on(t, f, "", "detach", "d"); got.code != 0 || len(m.steps) != 0 {
		t.Errorf("another's device: %+v, %q", got, m.steps)
	}
	f, m = connected(t)
	m.mount = &mounts.Mounted{Dir: "/m", Source: "/dev/sda1"}
	if got := m.on(t, f, "", "detach", "d"); got.code != 0 || len(m.done("unmount")) != 0 || len(m.done("disconnect")) != 1 {
		t.Errorf("another's mount: %+v, %q", got, m.steps)
	}
}

// TestDetachFuse: whose directory it is says the kernel; who may not unmount it is told who may.
func TestDetachFuse(t *testing.T) {
	mine, others := uint32(0), uint32(4711)
	for name, c := range map[string]struct {
		uid   int
		owner *uint32
		args  []string
		steps []string
		err   string
	}{
		"mine":            {0, &mine, nil, []string{"unmount /mfalse"}, ""},
		"mine, forced":    {0, &mine, []string{"--force"}, []string{"unmount /mtrue"}, ""},
		"somebody else's": {0, &others, nil, nil, ""},
		"no fuse":         {0, nil, nil, nil, ""},
		"root's":          {1000, &mine, nil, nil, "warning: /m stays mounted; root unmounts it"},
	} {
		f, m := withDisk(t), newMachine(0)
		withPrograms(t, "nbdfuse", "fusermount3")
		if got := m.on(t, f, "", "attach", "d", "--fuse", "/m"); got.code != 0 {
			t.Fatalf("%+v", got)
		}
		m.uid, m.mount = c.uid, &mounts.Mounted{Dir: "/m", Kind: "fuse", Owner: c.owner}
		if got := m.on(t, f, "", append([]string{"detach", "d"}, c.args...)...); got.code != 0 || !strings.Contains(got.err, c.err) {
			t.Errorf("%s: %+v", name, got)
		}
		wantSteps(t, name, m.steps, c.steps...)
	}
}

// withPrograms leaves these programs alone on the path.
func withPrograms(t *testing.T, names ...string) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
}

// TestDetachAwaitsTheKeeper: the device can be connected anew when the detach has ended.
func TestDetachAwaitsTheKeeper(t *testing.T) {
	f, m := connected(t)
	m.keeps = 3
	if got := m.on(t, f, "", "detach", "d"); got.code != 0 || m.keeps >= 0 {
		t.Errorf("%+v; for %d more looks there is a keeper", got, m.keeps)
	}
}

// TestDetachLeftDevice: what daemon and keeper have left connected, both killed, is disconnected; what somebody keeps, or uses, is not.
func TestDetachLeftDevice(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*fakeMachine)
		args    []string
		code    int
		says    string
		steps   []string
	}{
		"left":        {func(*fakeMachine) {}, nil, 0, "/dev/nbd0 is disconnected", []string{"disconnect /dev/nbd0"}},
		"kept":        {func(m *fakeMachine) { m.keeps = 99 }, nil, 6, "not attached", nil},
		"another's":   {func(m *fakeMachine) { m.config.Identifier = "nbdcrypt:x" }, nil, 6, "not attached", nil},
		"used":        {func(m *fakeMachine) { m.users = []string{"it is mounted"} }, nil, 6, "it is mounted", nil},
		"used, force": {func(m *fakeMachine) { m.users = []string{"it is mounted"} }, []string{"--force"}, 0, "disconnected", []string{"disconnect /dev/nbd0"}},
		"held":        {func(m *fakeMachine) { m.fails["disconnect"] = blockdev.ErrHeld }, nil, 0, "gives errors to who", []string{"disconnect /dev/nbd0"}},
		"not root":    {func(m *fakeMachine) { m.uid = 1000 }, nil, 6, "not attached", nil},
	} {
		f, m := connected(t)
		d, _ := f.disk("d")
		d.Attachments = nil
		c.prepare(m)
		got := m.on(t, f, "", append([]string{"detach", "d"}, c.args...)...)
		if got.code != c.code || !strings.Contains(got.out+got.err, c.says) {
			t.Errorf("%s: %+v", name, got)
		}
		wantSteps(t, name, m.steps, c.steps...)
	}
}
