//go:build integration

package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nbdcrypt/pkg/control"
)

// A second daemon on the same directories is refused and told the first one's process; the first goes on.
func TestSecondDaemon(t *testing.T) {
	t.Parallel()
	first := startDaemon(t)
	first.create("vol", "4M", "--encrypted")
	uri := first.attach("vol")
	for what, lay := range map[string]func(second *daemon){
		"the same state": func(d *daemon) { d.state, d.root, d.pool = first.state, first.root, first.pool },
		"the same run":   func(d *daemon) { d.run = first.run },
		"everything":     func(d *daemon) { d.state, d.root, d.pool, d.run = first.state, first.root, first.pool, first.run },
	} {
		second := newDaemon(t)
		lay(second)
		if said := second.refusesToStart(6); !strings.Contains(said, fmt.Sprint("pid ", first.pid())) {
			t.Errorf("%s: the refusal does not name process %d: %s", what, first.pid(), said)
		}
	}
	write(t, dial(t, uri), noise("vol", 4096), 0)
	first.stop()
	if e := first.refused(7, "status"); e.Hint == "" {
		t.Error("without a daemon there is no hint how to start one")
	}
}

// TestRuleC19_BrokenBuildRefusesToStart, and touches nothing.
func TestRuleC19_BrokenBuildRefusesToStart(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	broken := tempDir(t) + "/nbdcrypt"
	check(t, build(broken, "-tags=selftest_broken"))
	d.program = broken
	said := d.refusesToStart(1)
	for _, want := range []string{"self-test", "do not use"} {
		if !strings.Contains(said, want) {
			t.Errorf("the refusal does not say %q: %s", want, said)
		}
	}
	if _, err := os.Stat(d.state); !os.IsNotExist(err) {
		t.Errorf("the broken build made a state directory: %v", err)
	}
}

// Clients that never finish a handshake, or leave in the middle of a write, harm nobody and don't keep the daemon from ending.
func TestClientsThatMisbehave(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.create("vol", "4M", "--encrypted")
	uri := d.attach("vol")
	for range 50 {
		silent, err := net.Dial("unix", filepath.Join(d.run, control.SocketNBD))
		check(t, err)
		defer silent.Close()
	}
	// A short write of which half arrives changes nothing; of a long one, what arrived may be there, in whole units of 4 KiB.
	tool(t, "python3", "-c", halfAWrite, d.run+"/nbd.sock", "0", "262144", "131072")
	tool(t, "python3", "-c", halfAWrite, d.run+"/nbd.sock", "1048576", "1048576", "600001")
	c := dial(t, uri)
	expect(t, c, make([]byte, 1<<20), 0)
	got := read(t, c, 1<<20, 1<<20)
	arrived := 600001 - 600001%4096
	for at := 0; at < len(got); at += 4096 {
		unit := string(got[at : at+4096])
		written := at < arrived && unit == strings.Repeat("x", 4096)
		if !written && unit != strings.Repeat("\x00", 4096) {
			t.Fatalf("the unit at %d of the write that broke off is neither old nor new", at)
		}
	}
	write(t, c, noise("vol", 1<<20), 0)
	check(t, c.Flush())
	d.stop()
	d.start()
	expect(t, dial(t, d.attach("vol")), noise("vol", 1<<20), 0)
}

// halfAWrite speaks NBD just as far as it needs: it announces a write (where, how long) and sends the beginning of it.
const halfAWrite = `
import socket, struct, sys
at, length, sent = map(int, sys.argv[2:])
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.recv(18, socket.MSG_WAITALL)
s.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 1, 3) + b"vol")
s.recv(10, socket.MSG_WAITALL)
s.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 1, 1, at, length) + b"x" * sent)
`

// asNobody runs the binary as a user without any rights.
func (d *daemon) asNobody(args ...string) *exec.Cmd {
	return d.nobody(append([]string{d.program}, args...)...)
}

func (d *daemon) nobody(args ...string) *exec.Cmd {
	cmd := d.command()
	cmd.Args = append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"}, args...)
	cmd.Path = "/usr/bin/setpriv"
	return cmd
}

// Another user can neither see nor open what was not attached for them, nor command the daemon; with --allow they can open.
func TestAnotherUser(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.create("vol", "4M", "--encrypted")
	uri := d.attach("vol")
	for _, args := range [][]string{
		{"disk", "list"}, {"disk", "show", "vol"}, {"disk", "show", "nosuch"}, {"disk", "create", "theirs", "--size=4M", "--plain"},
		{"disk", "delete", "vol", "--yes"}, {"disk", "escrow", "vol", "--yes"}, {"detach", "vol", "--yes"}, {"attach", "vol"},
		{"key", "create", "theirs"}, {"key", "list"}, {"key", "disable", "evs/default"}, {"grant", "create"}, {"grant", "revoke", "--yes"}, {"check"},
	} {
		refusedCommand(t, 5, d.asNobody(append(args, "--json")...))
	}
	mayOpen := func() bool {
		list := execute(t, d.nobody("nbdinfo", "--list", "nbd+unix:///?socket="+d.run+"/nbd.sock"))
		open := execute(t, d.nobody("nbdsh", "-u", uri, "-c", "h.pwrite(b'x' * 512, 0); h.flush(); print(h.pread(512, 0))"))
		sees, opens := strings.Contains(list.stdout, `"vol"`), open.code == 0
		if sees != opens {
			t.Errorf("an export is listed: %v, and opens: %v", sees, opens)
		}
		return opens
	}
	if mayOpen() {
		t.Error("another user opens the export")
	}
	d.do("detach", "vol")
	d.attach("vol", "--allow", "65534")
	if !mayOpen() {
		t.Error("the user named with --allow can't open the export")
	}
	refusedCommand(t, 5, d.asNobody("detach", "vol", "--yes", "--json"))
	for _, path := range []string{d.state, d.root, d.pool} {
		if execute(t, d.nobody("ls", path+"/")).code == 0 {
			t.Errorf("another user can look into %s", path)
		}
	}
	expect(t, dial(t, uri), []byte(strings.Repeat("x", 512)), 0)
	if get[control.Disk](d, "disk", "show", "vol").Status != "in-use" {
		t.Error("the disk is not attached any more")
	}
}
