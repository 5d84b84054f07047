//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"nbdcrypt/pkg/control"
)

// startTPM runs a TPM in software, whose state lies in dir, on a socket.
func startTPM(t *testing.T, dir string) (socket string, stop func()) {
	t.Helper()
	check(t, os.MkdirAll(dir, 0o700))
	socket = dir + "/tpm"
	cmd := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir, "--server", "type=unixio,path="+socket, "--flags", "not-need-init,startup-clear")
	check(t, cmd.Start())
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = os.Remove(socket)
	})
	t.Cleanup(stop)
	waitFor(t, "the TPM", func() bool {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return socket, stop
}

// onTPM speaks with a TPM itself.
func onTPM(t *testing.T, socket string, fn func(transport.TPM)) {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	check(t, err)
	defer conn.Close()
	fn(transport.FromReadWriter(conn))
}

// extend changes PCR 7, as another boot would.
func extend(t *testing.T, socket string) {
	t.Helper()
	onTPM(t, socket, func(tpm transport.TPM) {
		_, err := tpm2.PCRExtend{PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(7), Auth: tpm2.PasswordAuth(nil)},
			Digests: tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: bytes.Repeat([]byte{1}, 32)}}}}.Execute(tpm)
		check(t, err)
	})
}

// warned tells whether a warning of the status says so.
func (d *daemon) warned(words string) bool {
	return strings.Contains(strings.Join(d.status().Warnings, "\n"), words)
}

// TestRuleC8_TPMOpensTheStore: a TPM opens the store at its start, as long as its registers are as they were; then a kit does, and
// sealing anew mends it. A TPM that is another, gone, or silent is named, and does not hold up the start.
func TestRuleC8_TPMOpensTheStore(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	socket, stopTPM := startTPM(t, d.dir+"/tpm")
	d.create("vol", "16M", "--encrypted")
	write(t, dial(t, d.attach("vol")), noise("vol", 1<<20), 4<<20+777)
	if slot := get[control.Slot](d, "root", "slot", "add", "tpm2", "--tpm-device", socket); slot.Kind != "tpm2" || !slot.Automatic || !slot.Present {
		t.Fatalf("%+v", slot)
	}
	d.refused(2, "root", "slot", "add", "tpm2", "--name", "x", "--tpm-device", socket, "--pcrs", "sha1:7")
	d.refused(10, "root", "slot", "add", "tpm2", "--name", "x", "--tpm-device", d.dir+"/none")
	kit := d.dir + "/kit"
	d.do("root", "recovery", "create", "--out", kit)
	d.do("root", "slot", "remove", "key-file", "--yes")
	d.stop()
	d.start()
	if s := d.status(); s.Locked || len(s.Warnings) > 0 {
		t.Fatalf("it did not open: %v", s.Warnings)
	}
	expect(t, dial(t, d.attach("vol")), noise("vol", 1<<20), 4<<20+777)
	if e := d.refused(9, "root", "slot", "remove", "tpm2"); !strings.Contains(e.Message, "starts locked") {
		t.Errorf("removing the last automatic one: %+v", e)
	}
	d.stop()

	extend(t, socket)
	d.start()
	if !d.status().Locked || !d.warned("PCRs") {
		t.Errorf("with other registers: %v", d.status().Warnings)
	}
	if e := d.refused(10, "root", "unlock"); !strings.Contains(e.Message, "slot tpm2") || !strings.Contains(e.Message, "PCRs") {
		t.Errorf("%+v", e)
	}
	d.refused(10, "root", "slot", "reseal", "tpm2")
	d.do("root", "recovery", "open", "--kit", kit)
	d.do("root", "slot", "reseal", "tpm2")
	d.stop()
	d.start()
	if d.status().Locked {
		t.Errorf("sealed anew it did not open: %v", d.status().Warnings)
	}
	d.do("root", "slot", "reseal", "tpm2", "--pcrs", "none")
	extend(t, socket)
	d.do("root", "lock")
	d.do("root", "unlock")
	d.stop()

	stopTPM()
	for what, c := range map[string]struct {
		put   func() (away func())
		words string
	}{
		"gone": {func() func() { return func() {} }, "can't be reached"},
		"another": {func() func() {
			other, stop := startTPM(t, d.dir+"/other")
			check(t, os.Symlink(other, socket))
			return func() { stop(); check(t, os.Remove(socket)) }
		}, "another TPM"},
		"silent": {func() func() {
			l, err := net.Listen("unix", socket)
			check(t, err)
			var held []net.Conn // one that is forgotten closes itself
			go func() {
				for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
					held = append(held, conn)
				}
			}()
			return func() { _ = l.Close() }
		}, "no answer"},
	} {
		away := c.put()
		began := time.Now()
		d.start()
		if took := time.Since(began); took > 15*time.Second || !d.status().Locked || !d.warned(c.words) {
			t.Errorf("%s: after %v, %v", what, took, d.status().Warnings)
		}
		d.stop()
		away()
	}
	startTPM(t, d.dir+"/tpm")
	d.start()
	d.do("attach", "vol")
}

// wiretap passes on what goes between a daemon and its TPM, and keeps all of it.
func wiretap(t *testing.T, to string) (socket string, heard func() []byte) {
	t.Helper()
	socket = to + ".tapped"
	l, err := net.Listen("unix", socket)
	check(t, err)
	t.Cleanup(func() { _ = l.Close() })
	var mu sync.Mutex
	var all bytes.Buffer
	pass := func(dst, src net.Conn) {
		defer dst.Close()
		b := make([]byte, 8192)
		for {
			n, err := src.Read(b)
			mu.Lock()
			all.Write(b[:n])
			mu.Unlock()
			if _, errWrite := dst.Write(b[:n]); err != nil || errWrite != nil {
				return
			}
		}
	}
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			tpm, err := net.Dial("unix", to)
			if err != nil {
				_ = from.Close()
				continue
			}
			go pass(tpm, from)
			go pass(from, tpm)
		}
	}()
	return socket, func() []byte {
		mu.Lock()
		defer mu.Unlock()
		return bytes.Clone(all.Bytes())
	}
}

// TestTPMBusShowsNothing: what a TPM unseals goes over its bus encrypted. Who asks the TPM in clear sees it there, and so do we.
func TestTPMBusShowsNothing(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	socket, _ := startTPM(t, d.dir+"/tpm")
	tapped, heard := wiretap(t, socket)
	slot := get[control.Slot](d, "root", "slot", "add", "tpm2", "--tpm-device", tapped, "--pcrs", "none")
	d.do("root", "lock")
	check(t, os.Rename(d.root, d.root+".away"))
	d.do("root", "unlock")
	ours := heard()
	if len(ours) < 1000 {
		t.Fatalf("%d bytes went over the bus", len(ours))
	}
	text, err := os.ReadFile(filepath.Join(d.state, "slots", slot.ID))
	check(t, err)
	line := func(word string) (b []byte) {
		_, rest, _ := strings.Cut(string(text), "\n"+word+" ")
		value, _, _ := strings.Cut(rest, "\n")
		_, err := fmt.Sscanf(value, "%x", &b)
		check(t, err)
		return b
	}
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](line("public"))
	check(t, err)
	var secret []byte
	onTPM(t, tapped, func(tpm transport.TPM) {
		parent, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(tpm)
		check(t, err)
		object, err := tpm2.Load{ParentHandle: tpm2.AuthHandle{Handle: parent.ObjectHandle, Name: parent.Name, Auth: tpm2.PasswordAuth(nil)},
			InPrivate: tpm2.TPM2BPrivate{Buffer: line("private")}, InPublic: tpm2.New2B(*public)}.Execute(tpm)
		check(t, err)
		session, end, err := tpm2.PolicySession(tpm, tpm2.TPMAlgSHA256, 16)
		check(t, err)
		defer end()
		opened, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: object.ObjectHandle, Name: object.Name, Auth: session}}.Execute(tpm)
		check(t, err)
		secret = opened.OutData.Buffer
	})
	if len(secret) != 32 || !bytes.Contains(heard(), secret) {
		t.Fatalf("positive control: %d bytes, which are not on the bus", len(secret))
	}
	if bytes.Contains(ours, secret) || bytes.Contains(ours, secret[:8]) || bytes.Contains(ours, secret[24:]) {
		t.Error("the secret went over the bus in clear")
	}
}

// TestRuleC9_KitOpensOnAnotherMachine: every automatic slot is gone, all that is left is a copy of the state directory and sheets of a
// kit; then the store opens, its disks are what they were, and it gets a root key file again.
func TestRuleC9_KitOpensOnAnotherMachine(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	socket, stopTPM := startTPM(t, d.dir+"/tpm")
	d.do("key", "create", "mine")
	for name, flags := range map[string][]string{"vol": {"--encrypted"}, "own": {"--key", "mine"}, "plain": {"--plain"}} {
		d.create(name, "16M", flags...)
		write(t, dial(t, d.attach(name)), noise(name, 1<<20), 4<<20+777)
	}
	d.do("root", "slot", "add", "tpm2", "--tpm-device", socket)
	credential := d.dir + "/credential"
	d.do("root", "slot", "add", "credential", "--out", credential)
	d.do("root", "recovery", "create", "--shares", "5", "--threshold", "3", "--out", d.dir+"/kit")
	d.do("root", "recovery", "create", "--name", "other", "--shares", "2", "--threshold", "2", "--out", d.dir+"/other")
	d.stop()

	// The credential opens too, while it is there.
	check(t, os.Rename(d.root, d.root+".away"))
	check(t, os.Mkdir(d.dir+"/credentials", 0o700))
	check(t, os.Rename(credential, d.dir+"/credentials/nbdcrypt.root"))
	stopTPM()
	d.env = []string{"CREDENTIALS_DIRECTORY=" + d.dir + "/credentials"}
	d.start()
	if d.status().Locked {
		t.Errorf("the credential did not open it: %v", d.status().Warnings)
	}
	d.stop()

	there := newDaemon(t)
	tool(t, "cp", "-a", d.state, there.state)
	tool(t, "cp", "-a", d.pool, there.pool)
	check(t, os.RemoveAll(d.state))
	there.start()
	if s := there.status(); !s.Locked || !s.Closed {
		t.Fatalf("it opened by itself: %+v", s)
	}
	there.refused(10, "root", "unlock")
	sheets := func(numbers ...int) (args []string) {
		for _, n := range numbers {
			args = append(args, "--kit", fmt.Sprintf("%s/kit-%d", d.dir, n))
		}
		return args
	}
	open := []string{"root", "recovery", "open"}
	for words, args := range map[string][]string{
		"opens with 3 shares, and 2 were given": sheets(1, 2),
		"share 4 was given twice":               sheets(4, 2, 4),
		"another recovery kit":                  append(sheets(1, 2), "--kit", d.dir+"/other-1"),
	} {
		if e := there.refused(2, append(open, args...)...); !strings.Contains(e.Message, words) {
			t.Errorf("%q: %+v", args, e)
		}
	}
	// A typo is named by its line.
	text, err := os.ReadFile(d.dir + "/kit-1")
	check(t, err)
	at := bytes.Index(text, []byte("line 3   ")) + len("line 3   ")
	text[at] ^= map[bool]byte{true: 1, false: '0' ^ 'z'}[text[at] != '0']
	check(t, os.WriteFile(d.dir+"/typo", text, 0o600))
	if e := there.refused(2, append(open, append(sheets(2, 3), "--kit", d.dir+"/typo")...)...); !strings.Contains(e.Message, "sheet 1, line 3") {
		t.Errorf("%+v", e)
	}
	there.do(append([]string{"root", "recovery", "verify"}, sheets(2, 4, 5)...)...)
	if !there.status().Locked {
		t.Error("verifying opened it")
	}
	if r := execute(t, there.command(append(open, sheets(5, 1, 3)...)...)); r.code != 0 || !strings.Contains(r.stdout, "by slot recovery") || !strings.Contains(r.stdout, "slot add key-file") {
		t.Fatalf("%+v", r)
	}
	for _, name := range []string{"vol", "own", "plain"} {
		expect(t, dial(t, there.attach(name)), noise(name, 1<<20), 4<<20+777)
	}
	there.checkClean()
	there.do("root", "slot", "add", "key-file")
	there.refused(6, "root", "slot", "add", "key-file")
	there.stop()
	there.start()
	if there.status().Locked {
		t.Error("with a root key file again it starts locked")
	}
	expect(t, dial(t, there.attach("vol")), noise("vol", 1<<20), 4<<20+777)
}

// TestRecoveryTypedOnATerminal: a person types a kit, mistypes a line, and gets in.
func TestRecoveryTypedOnATerminal(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	sheet := d.do("root", "recovery", "create")
	d.stop()
	check(t, os.Rename(d.root, d.root+".away"))
	d.start()
	var lines []string
	for _, row := range strings.Split(sheet, "\n") {
		if _, rest, is := strings.Cut(row, "    line "); is {
			lines = append(lines, strings.TrimSpace(rest[1:]))
		}
	}
	p := onTerminal(t, d.command("root", "recovery", "open"))
	for i, c := range []struct{ prompt, typed string }{
		{"Sheet 1, line 1: ", lines[0]}, {"Sheet 1, line 2: ", "abcd"}, {"Sheet 1, line 2: ", strings.ToUpper(lines[1])},
		{"Sheet 1, line 3: ", strings.ReplaceAll(lines[2], " ", "-")}, {"Sheet 1, line 4: ", lines[3]},
	} {
		waitFor(t, "it asks for a line", func() bool {
			return strings.Count(p.screen(), "Sheet 1, line ") > i && strings.HasSuffix(p.screen(), c.prompt)
		})
		_, err := p.master.WriteString(c.typed + "\n")
		check(t, err)
	}
	if code := p.exit(); code != 0 || !strings.Contains(p.screen(), "sheet 1, line 2: not 20 letters") {
		t.Errorf("%d %s", code, p.screen())
	}
	p.shows("by slot recovery")
}
