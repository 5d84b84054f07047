//go:build integration

package integration

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"nbdcrypt/pkg/control"
)

const (
	rightPassphrase = "quiet harbour lantern"
	wrongPassphrase = "quiet harbour latern"
)

// underPassphrase makes an encrypted disk `vol` that holds noise("vol"), a passphrase slot `alice` and its passphrase in a
// file, and starts the daemon again without its key file.
func underPassphrase(t *testing.T) (d *daemon, file string) {
	t.Helper()
	d = startDaemon(t)
	d.create("vol", "64M", "--encrypted")
	write(t, dial(t, d.attach("vol")), noise("vol", 1<<20), 48<<20+777)
	file = d.dir + "/passphrase"
	check(t, os.WriteFile(file, []byte(rightPassphrase+"\n"), 0o600))
	if slot := get[control.Slot](d, "root", "slot", "add", "passphrase", "--name", "alice", "--passphrase-file", file); slot.Kind != "passphrase" {
		t.Fatalf("%+v", slot)
	}
	d.stop()
	check(t, os.Rename(d.root, d.root+".away"))
	d.start()
	return d, file
}

// TestRuleA4_LockedStart: without the root key file the daemon starts and opens nothing; the passphrase opens it all again.
func TestRuleA4_LockedStart(t *testing.T) {
	t.Parallel()
	d, file := underPassphrase(t)
	if s := d.status(); !s.Locked || !s.Closed || s.LockedSince == nil || s.Disks != 0 {
		t.Errorf("the status: %+v", s)
	}
	for _, args := range [][]string{{"attach", "vol"}, {"disk", "list"}, {"detach", "vol"}, {"key", "create", "k"}, {"disk", "create", "x", "--size=1M", "--plain"},
		{"check"}, {"root", "slot", "remove", "alice", "--yes"}} {
		if e := d.refused(10, args...); !strings.Contains(e.Hint, "nbdcrypt root unlock") {
			t.Errorf("%q: the hint is %q", args, e.Hint)
		}
	}
	if e := d.refused(10, "root", "unlock"); !strings.Contains(e.Message, d.root) || !strings.Contains(e.Hint, "--passphrase-file") {
		t.Errorf("%+v", e)
	}
	check(t, os.WriteFile(file+".wrong", []byte(wrongPassphrase), 0o600))
	d.refused(10, "root", "unlock", "--passphrase-file", file+".wrong")

	unlock := d.command("root", "unlock", "--passphrase-file", "-")
	unlock.Stdin = strings.NewReader(rightPassphrase)
	if r := execute(t, unlock); r.code != 0 || !strings.Contains(r.stdout, "by slot alice") {
		t.Fatalf("unlock: %+v", r)
	}
	if s := d.status(); s.Locked || s.Closed || s.LockedSince != nil || s.Disks != 1 {
		t.Errorf("the status: %+v", s)
	}
	expect(t, dial(t, d.attach("vol")), noise("vol", 1<<20), 48<<20+777)
	d.checkClean()
	d.stop()

	// The key file back, nobody is needed.
	check(t, os.Rename(d.root+".away", d.root))
	d.start()
	d.do("attach", "vol")
}

// TestUnlockOnATerminal: a person is asked, mistypes, and gets in; nothing that is typed shows or is kept.
func TestUnlockOnATerminal(t *testing.T) {
	t.Parallel()
	d, _ := underPassphrase(t)
	const prompt = "Passphrase of the root key: "

	p := onTerminal(t, d.command("root", "unlock"))
	p.answer(prompt, 1, "\x03")
	if code := p.exit(); code != 1 {
		t.Errorf("interrupted: %d %s", code, p.screen())
	}
	p.shows("interrupted")

	p = onTerminal(t, d.command("root", "unlock"))
	p.answer(prompt, 1, wrongPassphrase+"\n")
	p.answer(prompt, 2, rightPassphrase+"\n")
	if code := p.exit(); code != 0 || !strings.Contains(p.screen(), "opens no slot") {
		t.Errorf("unlock: %d %s", code, p.screen())
	}
	p.shows("by slot alice")
	if strings.Contains(p.screen(), "harbour") {
		t.Errorf("what was typed shows: %s", p.screen())
	}
	expect(t, dial(t, d.attach("vol")), noise("vol", 1<<20), 48<<20+777)

	p = onTerminal(t, d.command("root", "slot", "add", "passphrase", "--name", "bob"))
	p.answer("New passphrase: ", 1, "another one\n")
	p.answer("The same again: ", 1, "another one\n")
	if code := p.exit(); code != 0 || len(get[[]control.Slot](d, "root", "slot", "list")) != 3 {
		t.Errorf("slot add: %d %s", code, p.screen())
	}
	p = onTerminal(t, d.command("root", "slot", "add", "passphrase", "--name", "carol"))
	p.answer("New passphrase: ", 1, "\x04") // which ends the input
	if code := p.exit(); code != 1 || !p.echoes() {
		t.Errorf("without a passphrase: %d, echo %v, %s", code, p.echoes(), p.screen())
	}
	p.shows("nothing was done")
	d.stop()
	for _, path := range files(t, d.dir) {
		text, err := os.ReadFile(path)
		check(t, err)
		if !strings.HasSuffix(path, "/passphrase") && (bytes.Contains(text, []byte("harbour")) || bytes.Contains(text, []byte("another one"))) {
			t.Errorf("a passphrase lies in %s", path)
		}
	}
}

// TestPromptIsNotDumpable: while a passphrase is typed, other processes of the same user can't look into the command: its
// files in /proc belong to root (proc(5)).
func TestPromptIsNotDumpable(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	cmd := d.command("root", "slot", "add", "passphrase")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	p := onTerminal(t, cmd)
	p.shows("New passphrase: ")
	info, err := os.Stat("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/environ")
	check(t, err)
	if uid := info.Sys().(*syscall.Stat_t).Uid; uid != 0 {
		t.Errorf("the files of the process belong to user %d", uid)
	}
	control := exec.Command("sleep", "60")
	control.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	check(t, control.Start())
	defer func() { _ = control.Process.Kill(); _ = control.Wait() }()
	if info, err = os.Stat("/proc/" + strconv.Itoa(control.Process.Pid) + "/environ"); err != nil || info.Sys().(*syscall.Stat_t).Uid != 65534 {
		t.Errorf("a process that is dumpable looks the same: %v", err)
	}
	p.answer("New passphrase: ", 1, "long enough\n")
	p.answer("The same again: ", 1, "long enough\n")
	if code := p.exit(); code != 5 {
		t.Errorf("a stranger adds a slot: %d %s", code, p.screen())
	}
	p.shows("security-admin")
}

// TestLockedUnderLoad: root lock under a verified load stops nothing that is attached; a detach is durable; then only
// unlocking opens the disk again, with every byte that it held.
func TestLockedUnderLoad(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.create("vol", "16M", "--encrypted")
	d.create("other", "16M", "--encrypted")
	l := newLoad(512)
	wait := l.start(t, d.attach("vol"))
	l.waitForFlushes(t, 20)
	if s := get[control.RootState](d, "root", "lock"); !s.Changed || !s.Locked || s.Attached != 1 {
		t.Errorf("%+v", s)
	}
	l.waitForFlushes(t, 20)
	if e := d.refused(10, "attach", "other"); !strings.Contains(e.Message, "other") || !strings.Contains(e.Hint, "nbdcrypt root unlock") {
		t.Errorf("%+v", e)
	}
	if s := get[control.RootState](d, "root", "lock"); s.Changed || !s.Locked {
		t.Errorf("%+v", s)
	}
	if s := d.status(); !s.Locked || s.Closed || s.Attached != 1 || s.Disks != 2 {
		t.Errorf("%+v", s)
	}
	l.waitForFlushes(t, 20)
	d.do("detach", "vol")
	wait()
	l.drained()
	d.refused(10, "attach", "vol")
	if s := get[control.RootState](d, "root", "unlock"); !s.Changed || s.Locked || s.Slot == nil || s.Slot.ID != "key-file" {
		t.Errorf("%+v", s)
	}
	l.verify(t, d.attach("vol"))

	// Locked over a stop and a start: the key file opens it again, unless it is gone.
	d.do("root", "lock")
	d.stop()
	d.start()
	l.verify(t, d.attach("vol"))
	d.stop()
	check(t, os.Remove(d.root))
	if said := d.refusesToStart(10); !strings.Contains(said, d.root) {
		t.Errorf("it said %s", said)
	}
}
