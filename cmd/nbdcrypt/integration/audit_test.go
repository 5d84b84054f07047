//go:build integration

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"nbdcrypt/pkg/control"
)

// smallLog puts the audit log of a daemon that is stopped on a file system of its own, and returns where that is mounted.
func (d *daemon) smallLog() (mount string) {
	d.t.Helper()
	mount, log := filepath.Join(d.dir, "small"), filepath.Join(d.state, "audit.log")
	check(d.t, os.Mkdir(mount, 0o700))
	tool(d.t, "mount", "-t", "tmpfs", "-o", "mode=700,size=1m", "nbdcrypt-test", mount)
	tool(d.t, "cp", "-p", log, mount+"/audit.log")
	tool(d.t, "mount", "--bind", mount+"/audit.log", log)
	d.t.Cleanup(func() {
		d.kill()
		check(d.t, syscall.Unmount(log, 0))
		check(d.t, syscall.Unmount(mount, 0))
	})
	return mount
}

// Rule A12: where the log has no room no key is released, and that is said; I/O in progress goes on, what is attached can be detached, and once
// there is room everything goes on, and the log says what it misses.
func TestRuleA12_FullLogReleasesNoKey(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.create("busy", "16M", "--encrypted")
	d.create("other", "16M", "--encrypted")
	d.stop()
	mount := d.smallLog()
	d.start()
	l := newLoad(512)
	wait := l.start(t, d.attach("busy"))
	l.waitForFlushes(t, 20)

	tool(t, "sh", "-c", "head -c 2M /dev/zero >"+mount+"/ballast || true")
	for range 40 { // what is left of a page still takes some
		d.do("key", "list")
	}
	for _, command := range [][]string{{"attach", "other"}, {"disk", "escrow", "other", "--yes"}} {
		e := d.refused(1, command...)
		if !strings.Contains(e.Message, "could not be recorded") || !strings.Contains(e.Message, "space") || !strings.Contains(e.Hint, "make room for the audit log") {
			t.Errorf("%q: %+v", command, e)
		}
	}
	if v := d.show("other"); len(v.Attachments) > 0 || v.Status != "available" {
		t.Errorf("the disk is %+v", v)
	}
	if status := get[control.Status](d, "status", "--keys"); status.Attached != 1 || !strings.Contains(strings.Join(status.Warnings, "\n"), "the audit log could not be written") {
		t.Errorf("the status is %+v", status)
	}
	l.waitForFlushes(t, 20)
	d.do("detach", "busy")
	wait()
	for _, w := range l.workers {
		if !errors.Is(w.ended, syscall.ESHUTDOWN) {
			t.Errorf("a client heard %v, not ESHUTDOWN", w.ended)
		}
	}
	l.drained()

	check(t, os.Remove(mount+"/ballast"))
	l.verify(t, d.attach("busy"))
	d.attach("other")
	missed := get[[]control.AuditRecord](d, "audit", "list", "--verb", "audit.missed")
	if len(missed) != 1 || !strings.Contains(missed[0].Message, "could not be written") {
		t.Errorf("what is missing: %+v", missed)
	}
	d.do("audit", "verify")
	d.stop()
	d.start()
	d.do("audit", "verify")
}

// Rule C18 on the real program: what somebody does to the files is found while it runs and when it starts, and what only a kept head finds
// that head finds.
func TestRuleC18_TamperedLog(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.create("vol", "4M", "--encrypted")
	log, head := filepath.Join(d.state, "audit.log"), filepath.Join(d.state, "audit.head")
	kept := strings.TrimSpace(d.do("audit", "head"))
	d.do("audit", "verify", "--head", kept)
	d.do("audit", "verify", "--head", kept, "--file", log)

	whole, err := os.ReadFile(log)
	check(t, err)
	f, err := os.OpenFile(log, os.O_WRONLY, 0)
	check(t, err)
	at := bytes.Index(whole, []byte(`"verb":"disk create"`))
	_, err = f.WriteAt([]byte(`"verb":"disk delete"`), int64(at))
	check(t, err)
	line := fmt.Sprintf("line %d:", 1+bytes.Count(whole[:at], []byte("\n")))
	if e := d.refused(8, "audit", "verify"); !strings.Contains(e.Message, line) {
		t.Errorf("%+v does not name %s", e, line)
	}
	d.refused(8, "audit", "list")
	d.stop()
	if said := d.refusesToStart(8); !strings.Contains(said, line) {
		t.Errorf("the start says %s", said)
	}
	_, err = f.WriteAt([]byte(`"verb":"disk create"`), int64(at))
	check(t, err)
	check(t, f.Close())
	d.start()
	d.stop()

	// Cut at a line, with and without the head.
	whole, err = os.ReadFile(log)
	check(t, err)
	check(t, os.WriteFile(log, whole[:bytes.LastIndexByte(whole[:len(whole)-1], '\n')+1], 0o600))
	d.refusesToStart(8)
	check(t, os.WriteFile(log, whole, 0o600))
	check(t, os.Rename(head, head+".away"))
	if said := d.refusesToStart(8); !strings.Contains(said, "audit.head") {
		t.Errorf("the start says %s", said)
	}
	check(t, os.Rename(head+".away", head))

	// All of the state directory of another day: only the head that was kept tells.
	tool(t, "cp", "-a", d.state, d.dir+"/before")
	d.start()
	d.do("disk", "list")
	later := strings.TrimSpace(d.do("audit", "head"))
	d.stop()
	check(t, os.Rename(d.state, d.dir+"/after"))
	check(t, os.Rename(d.dir+"/before", d.state))
	d.start()
	d.do("audit", "verify", "--head", kept)
	d.refused(8, "audit", "verify", "--head", later)
}
