//go:build integration

package integration

import (
	"os/exec"
	"strings"
	"testing"

	"nbdcrypt/pkg/control"
)

// underKey makes a key `mine`, a disk `vol` under it that holds noise("vol"), and attaches it.
func underKey(t *testing.T) (d *daemon, uri string) {
	t.Helper()
	d = startDaemon(t)
	return d, d.underKey()
}

func (d *daemon) underKey() (uri string) {
	d.t.Helper()
	d.do("key", "create", "mine")
	d.create("vol", "64M", "--key=mine")
	uri = d.attach("vol")
	c := dial(d.t, uri)
	write(d.t, c, noise("vol", 1<<20), 48<<20+777)
	check(d.t, c.Flush())
	return uri
}

func (d *daemon) holdsNoise(uri string) {
	d.t.Helper()
	expect(d.t, dial(d.t, uri), noise("vol", 1<<20), 48<<20+777)
}

// refusesAttach sees that attach names the key and its state (rules A15, A16).
func (d *daemon) refusesAttach() {
	d.t.Helper()
	e := d.refused(4, "attach", "vol")
	for _, want := range []string{"mine", "Disabled", "vol"} {
		if !strings.Contains(e.Message, want) {
			d.t.Errorf("the refusal does not name %s: %q", want, e.Message)
		}
	}
	if e.Hint == "" {
		d.t.Error("the refusal does not say what to do")
	}
	disk := d.show("vol")
	if disk.Status != "available" || disk.Key.State != "Disabled" {
		d.t.Errorf("the disk is %s, its key %s", disk.Status, disk.Key.State)
	}
}

// TestRuleA14_DisabledWhileAttached: a verified load runs across the disable; then the disk can't be attached until the
// key is enabled, and holds what it held.
func TestRuleA14_DisabledWhileAttached(t *testing.T) {
	t.Parallel()
	d, uri := underKey(t)
	load := exec.Command("fio", fioArgs(t, uri, "--rw=randrw", "--bs=4k", "--numjobs=4", "--size=8m", "--offset_increment=8m",
		"--time_based", "--runtime=4", "--verify=crc32c", "--verify_backlog=256", "--verify_fatal=1")...)
	var said strings.Builder
	load.Stdout, load.Stderr = &said, &said
	check(t, load.Start())
	ended := make(chan error, 1)
	go func() { ended <- load.Wait() }()
	waitFor(t, "fio does not connect", func() bool { return d.show("vol").Attachments[0].Clients >= 4 })
	d.do("key", "disable", "mine")
	select {
	case err := <-ended:
		t.Fatalf("the load ended before the disable: %v\n%s", err, said.String())
	default:
	}
	if err := <-ended; err != nil || !strings.Contains(said.String(), "err= 0") {
		t.Errorf("the load failed: %v\n%s", err, said.String())
	}
	d.holdsNoise(uri)

	// Rule A23: a detach that strands the disk wants a yes.
	if e := d.refused(9, "detach", "vol"); !strings.Contains(e.Message, "Disabled") {
		t.Errorf("the warning does not name the state: %q", e.Message)
	}
	d.do("detach", "vol", "--yes")
	d.refusesAttach()
	d.do("key", "enable", "mine")
	d.holdsNoise(d.attach("vol"))
}

// TestRuleA22_CrashIsADetach: after kill -9 no disk is attached, and what became of it is told; with its key enabled it can be attached again.
func TestRuleA22_CrashIsADetach(t *testing.T) {
	t.Parallel()
	d, _ := underKey(t)
	d.kill()
	d.start()
	if disk := d.show("vol"); len(disk.Attachments) != 0 || disk.Status != "available" {
		t.Errorf("after the crash the disk is %s with attachments %+v", disk.Status, disk.Attachments)
	}
	said := strings.Join(get[control.Status](d, "status").Warnings, "\n")
	if !strings.Contains(said, "vol") || !strings.Contains(said, "detach") {
		t.Errorf("status does not say what became of the disk: %q", said)
	}
	d.holdsNoise(d.attach("vol"))
}

// TestRuleA22_KilledWithItsKeyDisabled: after kill -9 a disk whose key was disabled stays down and says so; what was answered is kept without the key, and is
// there once that is enabled.
func TestRuleA22_KilledWithItsKeyDisabled(t *testing.T) {
	t.Parallel()
	d, uri := underKey(t)
	write(t, dial(t, uri), noise("unflushed", 1<<20), 8<<20)
	d.do("key", "disable", "mine")
	d.kill()
	d.start()
	said := strings.Join(get[control.Status](d, "status").Warnings, "\n")
	if !strings.Contains(said, "detaching vol") || !strings.Contains(said, "nothing that was answered is lost") {
		t.Errorf("status does not say what became of the disk: %q", said)
	}
	d.refusesAttach()
	d.do("key", "enable", "mine")
	uri = d.attachWhole("vol")
	d.holdsNoise(uri)
	expect(t, dial(t, uri), noise("unflushed", 1<<20), 8<<20)
}
