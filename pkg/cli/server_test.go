package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/vm"
)

// withServers is a fake daemon with an encrypted image and servers of it, each with a data disk.
func withServers(t *testing.T, names ...string) *fake {
	t.Helper()
	f := withDisk(t)
	lines := []string{"image create golden --from-disk d"}
	for _, name := range names {
		lines = append(lines, "server create "+name+" --image golden --data-disk size=1M,key=k")
	}
	for _, line := range lines {
		if got := try(t, f.run, "", strings.Fields(line)...); got.code != 0 {
			t.Fatalf("%s: %+v", line, got)
		}
	}
	return f
}

// TestServerFlags: what can't be meant is refused before anybody is asked, and the words of a disk are named with all that there are.
func TestServerFlags(t *testing.T) {
	f := withServers(t, "s")
	create, config := "server create n --image golden ", "scaling config create n --from-image golden "
	for line, want := range map[string]string{
		"server create n": "--image is missing", "server create n --image=": "--image is missing",
		create + "--plain --encrypted": "exclude each other", create + "--plain --key k": "under no key", create + "--key=": "--key is empty",
		create + "--system-size 1000": "--system-size 1000 is 1000 bytes", create + "--system-size=": "--system-size \"\" is not a size",
		create + "--cpus 0": "--cpus is at least 1", create + "--memory lots": "--memory \"lots\" is not a size", create + "--memory 1000": "whole MiB", create + "--memory 0": "whole MiB", create + "--memory 99999999999999999999999999": "not a size",
		create + "--network bridge": "neither user nor none", create + "--network=": "neither user nor none",
		create + "--data-disk=":                    `"" is no word of a disk; those are size=SIZE, encrypted, plain, key=KEY, sector-size=512 and sector-size=4096`,
		create + "--data-disk size=1G,cipher=none": `"cipher=none" is no word of a disk; those are size=SIZE, encrypted, plain,`,
		create + "--data-disk encrypted":           "size is missing, as in size=10G; the words", create + "--data-disk size=": `"size=" is no word`, create + "--data-disk size=1G,key=": `"key=" is no word`,
		create + "--data-disk size=1G,size=2G": "size stands in it twice", create + "--data-disk size=1G,sector-size=1024": `"sector-size=1024" is no word`, create + "--data-disk size=1G,encrypted=yes": `"encrypted=yes" is no word`,
		create + "--data-disk size=1G,plain,encrypted": "exclude each other", create + "--data-disk size=1G,key=k,plain": "under no key", create + "--data-disk size=512,sector-size=4096": "--data-disk size 512 is 512 bytes",
		create + "--data-disk size=1G --data-disk 1G": `"1G" is no word`,
		config + "--from-server s":                    "say what it is made of", "scaling config create n": "say what it is made of",
		"scaling config create n --from-server s --data-disk size=1G": "--data-disk goes with --from-image", "scaling config create n --from-server s --plain": "--plain goes with --from-image",
		config + "--cpus -1":                     "--cpus is at least 1",
		"scaling group create n --min 1 --max 2": "--config is missing", "scaling group create n --config c --max 2": "--min and --max are missing", "scaling group create n --config c --min 3 --max 2": "--min 3 and --max 2",
		"scaling group create n --config c --min -1 --max 2": "--min -1", "scaling group create n --config c --min 0 --max 0": "--max 0",
		"scaling group scale g many": "not \"many\"", "scaling group scale g -- -1": "not \"-1\"", "scaling group scale g": "N is missing",
		"server start": "SERVER is missing", "server stop": "SERVER is missing", "server start a a": "a is named twice", "server stop a b a": "a is named twice",
		"server start a b --foreground": "--foreground is for one server", "server start a --reconnect 1500ms": "whole seconds", "server start a --reconnect -1s": "whole seconds", "server start a --reconnect 2562047h": "a year at most",
		"server stop a --timeout 0s": "more than nothing", "server stop a --timeout 5s --force": "exclude each other",
		"server attach a": "DISK is missing", "image create n --from-server s --from-disk d": "say what the image is made of", "image create n --from-server s --format raw": "--format is of a file",
		"image create n --from-server s --sector-size 512": "--sector-size is for a file",
	} {
		f.asked = nil
		if got := try(t, f.run, "", strings.Fields(line)...); got.code != int(refusal.Usage) || !strings.Contains(got.err, want) || len(f.asked) != 0 {
			t.Errorf("%s: %+v, asked %q", line, got, f.asked)
		}
	}
	if got := try(t, f.run, "", "server", "start", "a", ""); got.code != int(refusal.Usage) || !strings.Contains(got.err, "SERVER is empty") {
		t.Errorf("%+v", got)
	}
}

// TestServerStop: several are stopped side by side, past one that can't be, whose code is the command's; with JSON they are an array.
func TestServerStop(t *testing.T) {
	f := withServers(t, "a", "b", "c")
	for _, name := range []string{"a", "b", "c"} {
		f.running(name)
	}
	if got := try(t, f.run, "", "server", "stop", "a", "--timeout", "2m"); got != (answer{0, "a is stopped\n", ""}) || !strings.Contains(f.asked[len(f.asked)-1], `{"timeout":"2m0s"}`) {
		t.Errorf("one: %+v, asked %q", got, f.asked)
	}
	got := try(t, f.run, "", "server", "stop", "c", "a", "b", "none", "--force")
	if got.code != int(refusal.Busy) || got.out != "c is stopped\nb is stopped\n" || !strings.Contains(got.err, "2 of 4 servers not stopped: a: server a is stopped; none: no server none\n") ||
		!strings.Contains(got.err, "warning: server b was switched off") || !strings.Contains(got.err, "`nbdcrypt server start a`") {
		t.Errorf("several: %+v", got)
	}
	f.running("a")
	f.running("b")
	got = try(t, f.run, "", "server", "stop", "a", "b", "--json")
	var list []control.Server
	if err := json.Unmarshal([]byte(got.out), &list); err != nil || got.code != 0 || len(list) != 2 || list[0].Name != "a" || list[1].Ended != "the guest shut down" {
		t.Errorf("JSON: %+v, %v", got, err)
	}
	if got := try(t, f.run, "", "server", "stop", "a", "b", "--json"); got.code != int(refusal.Busy) || got.out != "" {
		t.Errorf("none: %+v", got)
	}
}

// TestRuleA23_ServerStopAsks: stopping a server whose key is unusable names disk, key and state, and wants a yes; what needs none is stopped meanwhile.
func TestRuleA23_ServerStopAsks(t *testing.T) {
	f := withServers(t, "a", "b")
	try(t, f.run, "", "disk", "create", "e", "--size", "1M", "--plain")
	try(t, f.run, "", "image", "create", "open", "--from-disk", "e")
	try(t, f.run, "", "server", "create", "p", "--image", "open")
	for _, name := range []string{"a", "b", "p"} {
		f.running(name)
	}
	try(t, f.run, "", "key", "disable", "k")
	got := try(t, f.run, "", "server", "stop", "a", "p")
	if got.code != int(refusal.Confirm) || got.out != "p is stopped\n" || !strings.Contains(got.err, "disk a-system is under key k, which is Disabled") || !strings.Contains(got.err, "--yes") {
		t.Errorf("no terminal: %+v", got)
	}
	if got := try(t, f.run, "n\n", "server", "stop", "a"); got.code != int(refusal.Confirm) || !strings.Contains(got.err, "k, which is Disabled. Go on? [y/N]") {
		t.Errorf("no: %+v", got)
	}
	if got := try(t, f.run, "y\n", "server", "stop", "a"); got.code != 0 || got.out != "a is stopped\n" {
		t.Errorf("yes: %+v", got)
	}
	f.running("a")
	if got := try(t, f.run, "", "server", "stop", "a", "b", "--yes"); got.code != 0 || got.out != "a is stopped\nb is stopped\n" {
		t.Errorf("--yes: %+v", got)
	}
}

// TestServerConsole: a terminal hands over each key, until the one that leaves, and is set back; anything else is copied as it is.
func TestServerConsole(t *testing.T) {
	f := withServers(t, "s")
	s := f.running("s")
	if got := try(t, f.run, "", "server", "console", "s", "--log"); got != (answer{0, s.Console + " true\n", ""}) {
		t.Errorf("log: %+v", got)
	}
	if got := try(t, f.run, "", "server", "console", "s"); got != (answer{0, s.Console + " false\n", ""}) {
		t.Errorf("no terminal: %+v", got)
	}
	m := newMachine(1000)
	m.raw = func(io.Reader) (func(), error) {
		return func() { _ = m.step("back", "") }, m.step("raw", "")
	}
	m.console = func(_ context.Context, _ string, in io.Reader, out io.Writer, _ bool) error {
		_, err := io.Copy(out, in)
		if !errors.Is(err, vm.ErrLeave) {
			t.Errorf("the console was not left: %v", err)
		}
		return nil
	}
	if got := m.on(t, f, "ls\r\x03more\x1dnot this", "server", "console", "s"); got.code != 0 || got.out != "ls\r\x03more" || !strings.Contains(got.err, "Ctrl-] leaves") {
		t.Errorf("terminal: %+v", got)
	}
	wantSteps(t, "terminal", m.steps, "raw ", "back ")
	m.console = func(context.Context, string, io.Reader, io.Writer, bool) error {
		return refusal.New(refusal.Denied, "ask alice", "the console is alice's")
	}
	if got := m.on(t, f, "x", "server", "console", "s"); got.code != int(refusal.Denied) || !slices.Equal(m.steps, []string{"raw ", "back "}) {
		t.Errorf("refused: %+v, %q", got, m.steps)
	}
}

// TestUntilLeave: the key that leaves is found wherever it stands, and nothing behind it is read.
func TestUntilLeave(t *testing.T) {
	for _, typed := range []string{"\x1d", "a\x1d", "\x1da", "ab\x1dc\x1d"} {
		u := &untilLeave{in: strings.NewReader(typed)}
		var got bytes.Buffer
		_, err := io.Copy(&got, u)
		if before, _, _ := strings.Cut(typed, "\x1d"); got.String() != before || !errors.Is(err, vm.ErrLeave) {
			t.Errorf("%q: %q, %v", typed, got.String(), err)
		}
		if n, err := u.Read(make([]byte, 8)); n != 0 || !errors.Is(err, vm.ErrLeave) {
			t.Errorf("%q, once more: %d, %v", typed, n, err)
		}
	}
}

// TestServerShown: what runs is told of, and how the last run ended.
func TestServerShown(t *testing.T) {
	f := withServers(t, "s")
	s := f.running("s")
	f.servers[0].Ended, f.servers[0].Warnings = "QEMU was killed", []string{"the guest stands still: the pool is full"}
	got := try(t, f.run, "", "server", "show", "s")
	for _, part := range []string{"status      running\n", "run by      alice\nruns since  2026-01-02T03:04:05Z\n", "process 4242, kvm\n", "console     " + s.Console + "\n", "last run    QEMU was killed\n"} {
		if !strings.Contains(got.out, part) {
			t.Errorf("%q is not told: %s", part, got.out)
		}
	}
	if got.code != 0 || got.err != "warning: the guest stands still: the pool is full\n" {
		t.Errorf("%+v", got)
	}
}

// TestServerAsDomain: libvirt's description goes to stdout, in JSON as a string; how its disks get there is told beside it.
func TestServerAsDomain(t *testing.T) {
	f := withServers(t, "s")
	got := try(t, f.run, "", "server", "show", "s", "--libvirt")
	if got.code != 0 || !strings.HasPrefix(got.out, "<domain") || !strings.HasSuffix(got.out, "</domain>\n") || !strings.Contains(got.out, f.nbd()) ||
		!strings.Contains(got.err, "nbdcrypt attach s-system --allow libvirt-qemu\n  nbdcrypt attach s-data-1 --allow libvirt-qemu\n") {
		t.Errorf("%+v", got)
	}
	var as Domain
	got = try(t, f.run, "", "server", "show", "s", "--libvirt", "--json")
	if err := json.Unmarshal([]byte(got.out), &as); err != nil || !strings.HasPrefix(as.XML, "<domain") || got.err != "" {
		t.Errorf("JSON: %+v, %v", got, err)
	}
}
