package vm

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// This program is QEMU, too, where it is called so: its guest does what is typed on its console, and prints there what QEMU is told.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == Program {
		fakeQEMU(os.Args[1:])
		return
	}
	os.Exit(m.Run())
}

// fakeProgram is a path that this program is QEMU under.
func fakeProgram(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), Program)
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	return path
}

type fake struct {
	mu                         sync.Mutex
	monitor, console           *os.File
	deaf, keeps, refuses, full bool
	broken, pvm                bool     // KVM could not go on with the guest; it won't get far
	unquiet                    bool     // requests to its disks are under way for good
	going                      []string // devices that the guest was asked for
}

func fakeQEMU(args []string) {
	after := func(flag string) string { return args[slices.Index(args, flag)+1] }
	name := strings.TrimPrefix(after("-name"), "guest=")
	switch {
	case name == "big", name == "nokvm" && after("-accel") == "kvm":
		die(1, "warning: x\nqemu-system-x86_64: cannot set up guest memory 'pc.ram': Cannot allocate memory")
	case name == "silent":
		select {}
	}
	f := &fake{pvm: strings.HasPrefix(name, "pvm") && after("-accel") == "kvm", unquiet: name == "pvm-unquiet", monitor: os.NewFile(monitorFD, "monitor"), console: os.NewFile(consoleFD, "console")}
	go f.guest()
	f.say(map[string]any{"QMP": map[string]any{"version": map[string]any{}, "capabilities": []string{}}})
	for lines := bufio.NewScanner(f.monitor); lines.Scan(); {
		var c struct {
			Execute   string
			Arguments map[string]any
			ID        int
		}
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			die(3, err.Error())
		}
		f.do(c.Execute, c.Arguments, c.ID)
	}
}

func die(code int, words string) {
	fmt.Fprintln(os.Stderr, words)
	os.Exit(code)
}

func (f *fake) say(v map[string]any) {
	b, _ := json.Marshal(v)
	_, _ = f.monitor.Write(append(b, "\r\n"...))
}

func (f *fake) event(name string, data map[string]any) {
	f.say(map[string]any{"event": name, "data": data})
}

// do does a command of the monitor.
func (f *fake) do(command string, args map[string]any, id int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	text, _ := json.Marshal(args)
	fmt.Fprintf(f.console, "<%s %s>\n", command, text)
	if f.refuses && command == "device_add" || f.unquiet && command == "stop" {
		f.say(map[string]any{"id": id, "error": map[string]any{"class": "GenericError", "desc": "the bus is full"}})
		return
	}
	status := map[string]any{"status": map[bool]string{false: "running", true: "internal-error"}[f.broken]}
	f.say(map[string]any{"id": id, "return": status})
	switch command {
	case "system_powerdown":
		if !f.deaf {
			f.off("guest-shutdown")
		}
	case "device_del":
		f.going = append(f.going, args["id"].(string))
		if !f.keeps {
			f.letGo()
		}
	case "cont":
		f.event("RESUME", nil)
		if f.full {
			f.stop()
		}
		if f.pvm {
			f.broken = true
			f.event("STOP", nil)
		}
	}
}

func (f *fake) off(why string) {
	f.event("SHUTDOWN", map[string]any{"guest": true, "reason": why})
	fmt.Fprintln(f.console, "last words")
	os.Exit(0)
}

func (f *fake) letGo() {
	for _, device := range f.going {
		f.event("DEVICE_DELETED", map[string]any{"path": "/machine/peripheral/" + device + "/virtio-backend"})
		f.event("DEVICE_DELETED", map[string]any{"device": device, "path": "/machine/peripheral/" + device})
	}
	f.going = nil
}

func (f *fake) stop() {
	for range 2 {
		f.event("BLOCK_IO_ERROR", map[string]any{"device": "", "node-name": "node0", "operation": "write", "action": "stop", "nospace": true, "reason": "No space left on device"})
	}
	f.event("STOP", nil)
}

// guest is the guest.
func (f *fake) guest() {
	for lines := bufio.NewScanner(f.console); lines.Scan(); {
		f.mu.Lock()
		f.hear(lines.Text())
		f.mu.Unlock()
	}
}

func (f *fake) hear(line string) {
	command, rest, _ := strings.Cut(line, " ")
	n, _ := strconv.Atoi(rest)
	switch command {
	case "say":
		fmt.Fprintln(f.console, rest)
	case "off":
		f.off("guest-shutdown")
	case "term":
		f.off("host-signal")
	case "end":
		os.Exit(0)
	case "die":
		die(n, "first line\nqemu-system-x86_64: bad luck")
	case "deaf":
		f.deaf = true
	case "keep":
		f.keeps = true
	case "letgo":
		f.letGo()
	case "wont":
		f.event("DEVICE_UNPLUG_GUEST_ERROR", map[string]any{"device": f.going[0]})
	case "refuse":
		f.refuses = true
	case "full":
		f.full = true
		f.stop()
	case "break":
		f.broken = true
		f.event("STOP", nil)
	case "roomy":
		f.full = false
	case "bad":
		f.event("BLOCK_IO_ERROR", map[string]any{"node-name": "node1", "operation": "read", "action": "report"})
	case "flood":
		_, _ = f.console.Write([]byte(strings.Repeat("0123456789abcde\n", n/16)))
	case "limits":
		var core syscall.Rlimit
		_ = syscall.Getrlimit(syscall.RLIMIT_CORE, &core)
		adjusted, _ := os.ReadFile("/proc/self/oom_score_adj")
		filter, _ := os.ReadFile("/proc/self/coredump_filter")
		fmt.Fprintf(f.console, "core %d filter %s oom %s", core.Max, strings.TrimSpace(string(filter)), adjusted)
	}
	fmt.Fprintln(f.console, "done", line)
}
