//go:build integration

package integration

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/control"
)

// through has the daemon started by a shell that does something first, and then becomes serve with further flags. The other
// commands are not touched.
func (d *daemon) through(before, prefix string, flags ...string) {
	d.t.Helper()
	script := fmt.Sprintf("#!/bin/sh\n[ \"$1\" = serve ] || exec %[1]s \"$@\"\n%[2]s\nexec %[3]s %[1]s \"$@\" %[4]s\n",
		d.program, before, prefix, strings.Join(flags, " "))
	d.program = d.dir + "/through"
	writeFile(d.t, d.program, []byte(script))
	check(d.t, os.Chmod(d.program, 0o755))
}

const asNobody = "setpriv --reuid=65534 --regid=65534 --clear-groups --"

// field reads a line of a file of the kernel that tells of a process.
func field(t *testing.T, path, name string) string {
	t.Helper()
	for line := range strings.Lines(string(readFile(t, path))) {
		if value, is := strings.CutPrefix(line, name); is {
			return strings.TrimSpace(strings.TrimPrefix(value, ":"))
		}
	}
	t.Fatalf("%s has no %s", path, name)
	return ""
}

// threads are the status files of all threads.
func (d *daemon) threads() []string {
	list, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", d.pid()))
	check(d.t, err)
	if len(list) < 3 {
		d.t.Fatalf("only %d threads", len(list))
	}
	return list
}

// mayHandle are the signals that may have a handler: three that end the daemon, six faults of a thread, and one that the runtime
// sends itself for what this program never does.
var mayHandle = func() (set uint64) {
	for _, n := range []unix.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGILL, unix.SIGTRAP, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV,
		unix.SIGSYS, 33} {
		set |= 1 << (n - 1)
	}
	return set
}()

// TestRuleA12_NoSignalSavesRegisters: under load no thread of the daemon can be made to write its registers into ordinary memory, nor
// gain privileges, and status says the same.
func TestRuleA12_NoSignalSavesRegisters(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	l := newLoad(512)
	d.create("vol", fmt.Sprint(l.size()), "--encrypted")
	wait := l.start(t, d.attach("vol"))
	for _, thread := range d.threads() {
		caught, err := strconv.ParseUint(field(t, thread, "SigCgt"), 16, 64)
		check(t, err)
		if extra := caught &^ mayHandle; caught == 0 || extra != 0 {
			t.Errorf("%s: signals %#x have handlers, %#x of them must not", thread, caught, extra)
		}
		if field(t, thread, "NoNewPrivs") != "1" {
			t.Errorf("%s: may gain privileges", thread)
		}
	}
	if core := strings.Fields(field(t, fmt.Sprintf("/proc/%d/limits", d.pid()), "Max core file size")); core[0] != "0" || core[1] != "0" {
		t.Errorf("core files may have %q bytes", core)
	}
	p := get[control.Status](d, "status").Protection
	if p.Dumpable || p.Core || !p.NoNewPrivs || p.Signals == nil || len(p.Signals) != 0 {
		t.Errorf("status says %+v", p)
	}
	for _, line := range []string{"not dumpable, no core files, no new privileges, no signal saves registers"} {
		if said := d.do("status"); !strings.Contains(said, line) {
			t.Errorf("status does not say %q:\n%s", line, said)
		}
	}
	d.do("detach", "vol")
	wait()
}

// traced has Python attach to a process as a debugger does.
const traced = `
import ctypes, os, sys
ATTACH, DETACH = 16, 17
pid = int(sys.argv[1])
c = ctypes.CDLL(None, use_errno=True)
if c.ptrace(ATTACH, pid, None, None) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
os.waitpid(pid, 0)
c.ptrace(DETACH, pid, None, None)
`

// readBy has Python copy memory of a process the way debuggers do.
const readBy = `
import ctypes, os, sys
class iovec(ctypes.Structure): _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
pid, at = int(sys.argv[1]), int(sys.argv[2], 16)
buf = ctypes.create_string_buffer(4096)
c = ctypes.CDLL(None, use_errno=True)
ours, theirs = iovec(ctypes.addressof(buf), 4096), iovec(at, 4096)
if c.process_vm_readv(pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0) != 4096:
    sys.exit(os.strerror(ctypes.get_errno()))
`

// TestRuleA12_SameUserCantLookInside: what a user may do to every other process of theirs, they may not to the daemon.
func TestRuleA12_SameUserCantLookInside(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	check(t, os.Chown(d.dir, 65534, 65534))
	d.through("", asNobody)
	d.start()
	if uid := strings.Fields(field(t, fmt.Sprintf("/proc/%d/status", d.pid()), "Uid"))[0]; uid != "65534" {
		t.Fatalf("the daemon runs as user %s", uid)
	}
	sleeps := exec.Command("setpriv", append(strings.Fields(asNobody)[1:], "sleep", "1000")...)
	check(t, sleeps.Start())
	t.Cleanup(func() { sleeps.Process.Kill(); sleeps.Wait() })
	waitFor(t, "sleep runs as nobody", func() bool {
		return string(readFile(t, fmt.Sprintf("/proc/%d/comm", sleeps.Process.Pid))) == "sleep\n"
	})
	first := func(pid int) string { return fmt.Sprintf("%x", mappings(t, pid)[0].from) }
	for what, args := range map[string]func(pid int) []string{
		"ptrace":           func(pid int) []string { return []string{"python3", "-c", traced, fmt.Sprint(pid)} },
		"process_vm_readv": func(pid int) []string { return []string{"python3", "-c", readBy, fmt.Sprint(pid), first(pid)} },
		"mem":              func(pid int) []string { return []string{"sh", "-c", fmt.Sprintf("exec 3</proc/%d/mem", pid)} },
		"maps":             func(pid int) []string { return []string{"cat", fmt.Sprintf("/proc/%d/maps", pid)} },
		"environ":          func(pid int) []string { return []string{"cat", fmt.Sprintf("/proc/%d/environ", pid)} },
		"descriptors":      func(pid int) []string { return []string{"ls", fmt.Sprintf("/proc/%d/fd/", pid)} },
		"system call":      func(pid int) []string { return []string{"cat", fmt.Sprintf("/proc/%d/syscall", pid)} },
	} {
		if r := execute(t, d.nobody(args(sleeps.Process.Pid)...)); r.code != 0 {
			t.Errorf("control: %s of another process is refused: %s", what, r.stderr)
		}
		if r := execute(t, d.nobody(args(d.pid())...)); r.code == 0 {
			t.Errorf("%s of the daemon is open to its user", what)
		}
	}
	d.stop()
}

// TestRuleA12_NoCore: however the daemon dies, the kernel dumps nothing, also where whoever started it wants cores of any size.
func TestRuleA12_NoCore(t *testing.T) {
	t.Parallel()
	const unlimited = "ulimit -c unlimited"
	for _, n := range []unix.Signal{unix.SIGABRT, unix.SIGQUIT, unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGSYS} {
		d := newDaemon(t)
		cores := tempDir(t) // a pattern that is a plain name puts the file here
		control := exec.Command("sh", "-c", unlimited+"; cd "+cores+"; exec sleep 1000")
		check(t, control.Start())
		waitFor(t, "sleep runs", func() bool {
			return string(readFile(t, fmt.Sprintf("/proc/%d/comm", control.Process.Pid))) == "sleep\n"
		})
		check(t, control.Process.Signal(n))
		_ = control.Wait()
		if status := control.ProcessState.Sys().(syscall.WaitStatus); !status.CoreDump() {
			t.Errorf("%v: control: an ordinary process makes no core (%v)", n, control.ProcessState)
		}
		before, _ := os.ReadDir(cores)

		d.env = []string{"GOTRACEBACK=crash"} // Go's own way of asking for a core
		d.through(unlimited+"; cd "+cores, "")
		d.start()
		check(t, d.cmd.Process.Signal(n))
		_ = d.cmd.Wait()
		status := d.cmd.ProcessState.Sys().(syscall.WaitStatus)
		d.cmd = nil
		if status.CoreDump() || (status.Exited() && status.ExitStatus() == 0) {
			t.Errorf("%v: the daemon ended with %#x", n, status)
		}
		if after, _ := os.ReadDir(cores); len(after) != len(before) {
			t.Errorf("%v: there is a core: %v", n, after)
		}
	}
}

// TestSecondTermEndsAtOnce: the first one ends the daemon in good order, which a caller who dawdles can draw out; the second does not wait.
func TestSecondTermEndsAtOnce(t *testing.T) {
	t.Parallel()
	for _, n := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		d := startDaemon(t)
		conn, err := net.Dial("unix", filepath.Join(d.run, control.SocketControl))
		check(t, err)
		defer conn.Close()
		// A call of which the body never comes.
		fmt.Fprintf(conn, "POST /v1/grants HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n")
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || !strings.Contains(line, "100") {
			t.Fatalf("the call is not waited for: %q, %v", line, err)
		}
		check(t, d.cmd.Process.Signal(n))
		waitFor(t, "the daemon is stopping", func() bool { return strings.Contains(d.said(), "stopping") })
		began := time.Now()
		ended := make(chan error)
		go func() { ended <- d.cmd.Wait() }()
		// The second one is let through a moment after the first was heard.
		for over := false; !over; {
			_ = d.cmd.Process.Signal(n)
			select {
			case <-ended:
				over = true
			case <-time.After(10 * time.Millisecond):
			}
		}
		if status := d.cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != n {
			t.Errorf("%v: the daemon ended with %v", n, d.cmd.ProcessState)
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("%v: the second one took %v", n, took)
		}
		d.cmd = nil
	}
}

// TestSignalStorm: signals that the daemon has no use for, sent to it and to each of its threads, do no harm.
func TestSignalStorm(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	l := newLoad(512)
	d.create("vol", fmt.Sprint(l.size()), "--encrypted")
	wait := l.start(t, d.attach("vol"))
	for range 200 {
		for _, n := range []unix.Signal{unix.SIGURG, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH, unix.SIGALRM, unix.SIGVTALRM, unix.SIGPROF,
			unix.SIGIO, unix.SIGCHLD, unix.SIGPIPE, unix.SIGCONT, unix.SIGXCPU, unix.SIGXFSZ, unix.SIGPWR, unix.SIGSTKFLT, 40, 64} {
			check(t, unix.Kill(d.pid(), n))
			for _, thread := range d.threads() {
				tid, err := strconv.Atoi(filepath.Base(filepath.Dir(thread)))
				check(t, err)
				_ = unix.Tgkill(d.pid(), tid, n) // it may have ended
			}
		}
	}
	l.waitForFlushes(t, 20)
	d.do("detach", "vol")
	wait()
	l.drained()
	l.verify(t, d.attach("vol"))
	d.checkClean()
	d.stop()
}

// TestKeyMemoryOfOnesChoice: the better kind is the default; the lesser one can be chosen; what is not to be had is refused before
// anything is made, and the default makes do.
func TestKeyMemoryOfOnesChoice(t *testing.T) {
	t.Parallel()
	kind := func(d *daemon) string { return get[control.Status](d, "status").KeyMemory.Kind }
	ends := func(what string, d *daemon, said string) {
		t.Helper()
		if got := d.refusesToStart(1); !strings.Contains(got, said) || !strings.Contains(got, "→") {
			t.Errorf("%s: the refusal does not say %q, or has no hint: %s", what, said, got)
		}
		if _, err := os.Stat(d.state); !os.IsNotExist(err) {
			t.Errorf("%s: a state directory was made: %v", what, err)
		}
	}
	for flag, want := range map[string]string{"auto": "memfd_secret", "memfd_secret": "memfd_secret", "locked": "locked memory"} {
		d := newDaemon(t)
		d.through("", "", "--key-memory", flag)
		d.start()
		d.do("grant", "create")
		d.create("vol", "4M", "--encrypted")
		c := dial(t, d.attach("vol"))
		write(t, c, noise("vol", 4096), 0)
		expect(t, c, noise("vol", 4096), 0)
		if got := kind(d); got != want {
			t.Errorf("%s: keys lie in %s", flag, got)
		}
		d.stop()

		without := newDaemon(t)
		without.through("", withoutSecretMemory(without), "--key-memory", flag)
		if flag == "memfd_secret" {
			ends("a kernel without it", without, "memfd_secret: function not implemented")
			continue
		}
		without.start()
		if got := kind(without); got != "locked memory" {
			t.Errorf("%s, on a kernel without memfd_secret: keys lie in %s", flag, got)
		}
		without.stop()
	}
	d := newDaemon(t)
	check(t, os.Chown(d.dir, 65534, 65534))
	d.through("ulimit -l 16", asNobody, "--key-memory", "memfd_secret")
	ends("a limit that is too low", d, "LimitMEMLOCK")
}

// withoutSecretMemory is a command that runs another one with a filter under which memfd_secret does not exist (seccomp(2)).
func withoutSecretMemory(d *daemon) string {
	d.t.Helper()
	const loadNumber, jumpIfEqual, answer, allow, noSuchCall = 0x20, 0x15, 0x06, 0x7fff0000, 0x00050000 | uint32(unix.ENOSYS)
	var filter []byte
	for _, instruction := range []struct {
		op       uint16
		yes, no  uint8
		argument uint32
	}{{loadNumber, 0, 0, 0}, {jumpIfEqual, 0, 1, unix.SYS_MEMFD_SECRET}, {answer, 0, 0, noSuchCall}, {answer, 0, 0, allow}} {
		filter = binary.NativeEndian.AppendUint16(filter, instruction.op)
		filter = append(filter, instruction.yes, instruction.no)
		filter = binary.NativeEndian.AppendUint32(filter, instruction.argument)
	}
	path := d.dir + "/without"
	writeFile(d.t, path, fmt.Appendf(nil, `import ctypes, os, sys
class fprog(ctypes.Structure): _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
NO_NEW_PRIVS, SECCOMP, FILTER = 38, 22, 2
code = bytes.fromhex("%x")
c = ctypes.CDLL(None)
assert c.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) == 0
assert c.prctl(SECCOMP, FILTER, ctypes.byref(fprog(len(code) // 8, code)), 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
`, filter))
	return "python3 " + path
}

// TestUnitLeavesEnough: with the capabilities that the systemd unit leaves to root the daemon does its work, passphrases included.
func TestUnitLeavesEnough(t *testing.T) {
	t.Parallel()
	unit := string(readFile(t, "../nbdcrypt.service"))
	_, rest, ok := strings.Cut(unit, "\nCapabilityBoundingSet=CAP_")
	left, _, _ := strings.Cut(rest, "\n")
	if !ok {
		t.Fatal("the unit leaves all capabilities")
	}
	d := newDaemon(t)
	d.through("", "setpriv --no-new-privs --inh-caps=-all --bounding-set=-all,+"+strings.ToLower(strings.ReplaceAll(left, " CAP_", ",+"))+" --")
	d.start()
	d.do("grant", "create")
	d.create("vol", "4M", "--encrypted")
	uri := d.attach("vol")
	write(t, dial(t, uri), noise("vol", 4096), 0)
	writeFile(t, d.dir+"/passphrase", []byte("a passphrase that is long enough\n"))
	d.do("root", "slot", "add", "passphrase", "--passphrase-file", d.dir+"/passphrase")
	if s := get[control.Status](d, "status"); s.KeyMemory.Kind != "memfd_secret" || s.KeyMemory.Limit != 0 {
		t.Errorf("key memory: %+v", s.KeyMemory)
	}
	expect(t, dial(t, uri), noise("vol", 4096), 0)
	d.do("detach", "vol")
	d.stop()
}
