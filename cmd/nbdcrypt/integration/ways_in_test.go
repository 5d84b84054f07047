//go:build integration

package integration

import (
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"nbdcrypt/pkg/control"
)

// TCP in clear is refused unless it is asked for in so many words, and stays inside the machine.
func TestInsecureLoopback(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	for _, flags := range [][]string{{"--listen=nbd://127.0.0.1:0"}, {"--insecure-loopback", "--listen=nbd://0.0.0.0:0"}, {"--insecure-loopback", "--listen=nbd://localhost:0"},
		{"--insecure-loopback", "--listen=nbd://[::]:0"}, {"--listen=nbds://127.0.0.1:0"}} {
		d.flags = flags
		if said := d.refusesToStart(2); !strings.Contains(said, "→") {
			t.Errorf("%q: no hint: %s", flags, said)
		}
	}
	d.flags = []string{"--insecure-loopback", "--listen=nbd://127.0.0.1:0"}
	d.start()
	d.do("grant", "create")
	d.create("vol", "4M", "--encrypted")
	d.attach("vol")
	uri := d.listens("nbd") + "/vol"
	script := "h.pwrite(b'x' * 512, 0); assert h.pread(512, 0) == b'x' * 512; h.shutdown()"
	tool(t, "nbdsh", "-u", uri, "-c", script)
	if r := execute(t, d.nobody("nbdsh", "-u", uri, "-c", script)); r.code == 0 {
		t.Error("another user opens the disk over TCP")
	}
	d.do("detach", "vol")
	d.attach("vol", "--allow=nobody")
	if r := execute(t, d.nobody("nbdsh", "-u", uri, "-c", script)); r.code != 0 {
		t.Errorf("a user whom it was opened to does not: %s", r.stderr)
	}
}

// --allow takes users, certificates and virtual machines, and nothing that may be a slip of the pen.
func TestAllow(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.create("vol", "4M", "--plain")
	if e := d.refused(3, "attach", "vol", "--allow=backup-host"); !strings.Contains(e.Hint, "cert:NAME") {
		t.Errorf("the hint is %q", e.Hint)
	}
	d.refused(2, "attach", "vol", "--allow=vsock:x")
	d.attach("vol", "--allow=nobody", "--allow=cert:backup-host", "--allow=vsock:3")
	if got := strings.Join(d.show("vol").Attachments[0].Allow, " "); got != "nobody cert:backup-host vsock:3" {
		t.Errorf("disk show says that it is open to %q", got)
	}
}

// systemd makes the sockets, starts the daemon when somebody comes, and keeps them when it ends.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	d := newDaemon(t)
	check(t, os.Mkdir(d.run, 0o755))
	port := freePort(t)
	d.under = []string{"systemd-socket-activate", "-l", d.run + "/control.sock", "-l", d.run + "/nbd.sock", "-l", "127.0.0.1:" + port,
		"-E", "NBDCRYPT_STATE", "-E", "NBDCRYPT_RUN", "-E", "NBDCRYPT_ROOT_KEY"}
	d.flags = p.flags()
	granted := make(chan result, 1)
	go func() {
		for execute(t, exec.Command("test", "-S", d.run+"/control.sock")).code != 0 {
			time.Sleep(5 * time.Millisecond)
		}
		granted <- execute(t, d.command("grant", "create")) // waits in the socket until the daemon is there
	}()
	d.start()
	if r := <-granted; r.code != 0 {
		t.Fatalf("the call that started the daemon: %s", r.stderr)
	}
	d.create("vol", "4M", "--encrypted")
	tool(t, "nbdinfo", d.attach("vol", "--allow=cert:backup"))
	tool(t, "nbdinfo", d.over("nbds", "vol", p.client("backup")))
	if s := get[control.Status](d, "status"); len(s.Listen) != 2 || s.Listen[1] != "nbds://127.0.0.1:"+port {
		t.Errorf("it serves at %q", s.Listen)
	}
	d.stop()
	for _, name := range []string{"/control.sock", "/nbd.sock"} {
		if _, err := os.Lstat(d.run + name); err != nil {
			t.Errorf("%s went with the daemon: %v", name, err)
		}
	}
	// A socket that can't be served is told at the start.
	d.under = []string{"systemd-socket-activate", "-l", "127.0.0.1:" + port, "-E", "NBDCRYPT_STATE", "-E", "NBDCRYPT_RUN", "-E", "NBDCRYPT_ROOT_KEY"}
	d.flags = nil
	go func() {
		for nc, err := net.Dial("tcp", "127.0.0.1:"+port); ; nc, err = net.Dial("tcp", "127.0.0.1:"+port) {
			if err == nil {
				nc.Close()
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	if said := d.refusesToStart(2); !strings.Contains(said, "--tls-cert") {
		t.Errorf("it said %s", said)
	}
}

// freePort is a port of TCP that nobody has at this moment.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// A virtual machine can't be had here; that the daemon listens for them can.
func TestVsockIsServed(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.flags = []string{"--listen=nbd+vsock://any:" + freePort(t)}
	d.start()
	if s := get[control.Status](d, "status"); len(s.Listen) != 2 || "--listen="+s.Listen[1] != d.flags[0] {
		t.Errorf("it serves at %q", s.Listen)
	}
	d.stop()
}
