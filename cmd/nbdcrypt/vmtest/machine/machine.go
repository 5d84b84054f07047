// Package machine boots virtual machines for tests: QEMU, without KVM, starts Debian's kernel with an initramfs that is made of this machine's
// busybox, Debian's tools, the program under test and the guest of this directory, and tests run scripts in there. It knows x86-64 alone.
package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"nbdcrypt/cmd/nbdcrypt/vmtest/wire"
	"nbdcrypt/pkg/qmp"
)

// patience is how long the machine may take for what should take a moment. Nothing depends on how long it really takes.
const patience = 2 * time.Minute

// Options say what a machine has. The zero value is one that most tests can do with.
type Options struct {
	Memory string // as QEMU takes it, 512M where it is empty
	CPUs   int    // 2 where it is 0
	Disks  []Disk
	Files  []File // in the guest's root, beside what is always there
	Append string // to the kernel's command line

	FromDisk bool // boots from the first disk, which BootImage made, and has none of Files and Append
}

// Disk is one that the guest finds as /dev/disk/by-serial/SERIAL.
type Disk struct {
	Source   string // a path, or an nbd+unix URI
	Serial   string // 20 bytes at most
	Cache    string // QEMU's cache mode, writeback where it is empty
	ReadOnly bool
}

// Machine is one that runs.
type Machine struct {
	t       testing.TB
	dir     string
	console string
	ended   chan struct{} // closed when QEMU has
	pid     int
	agent   *channel
	qmp     *qmp.Client
}

// Start boots a machine and waits until it takes commands. It goes when the test ends.
func Start(t testing.TB, o Options) *Machine {
	t.Helper()
	m, err := start(t, o)
	if err != nil {
		t.Fatalf("starting a virtual machine: %v", err)
	}
	return m
}

func start(t testing.TB, o Options) (*Machine, error) {
	if prepared.initramfs == "" {
		return nil, errors.New("TestMain has not called machine.Prepare")
	}
	dir, err := os.MkdirTemp(prepared.dir, "m")
	if err != nil {
		return nil, err
	}
	m := &Machine{t: t, dir: dir, console: dir + "/console", ended: make(chan struct{})}
	initramfs, err := withFiles(dir+"/initramfs", o.Files)
	if err != nil {
		return nil, err
	}
	if err := m.run(arguments(o, dir, initramfs)); err != nil {
		return nil, err
	}
	t.Cleanup(m.clean)
	if m.qmp, err = m.dialQMP(); err != nil {
		return nil, m.broken(err)
	}
	if m.agent, err = m.dialAgent(); err != nil {
		return nil, m.broken(err)
	}
	return m, nil
}

// run starts QEMU. It ends with this process, which is to say with the thread that started it; so that thread waits for it.
func (m *Machine) run(args []string) error {
	var said strings.Builder
	cmd := exec.Command("qemu-system-x86_64", args...)
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		if err == nil {
			m.pid = cmd.Process.Pid
		}
		started <- err
		if err != nil {
			return
		}
		if err := cmd.Wait(); said.Len() > 0 {
			_ = appendTo(m.console, fmt.Sprintf("\nqemu said: %s%v\n", said.String(), err))
		}
		close(m.ended)
	}()
	return <-started
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return err
}

// Console is what the guest's kernel has said so far, and whatever wrote to its console.
func (m *Machine) Console() string {
	text, _ := os.ReadFile(m.console)
	return strings.ReplaceAll(string(text), "\r", "")
}

// broken ends a machine that did not come up, and says what its kernel said.
func (m *Machine) broken(err error) error {
	m.Cut()
	return fmt.Errorf("%w\n%s", err, m.Console())
}

// Cut cuts the power: QEMU is killed. Nothing of the guest runs on, what it gave to its disks is as they are.
func (m *Machine) Cut() {
	select {
	case <-m.ended:
	default:
		_ = syscall.Kill(m.pid, syscall.SIGKILL)
		<-m.ended
	}
}

// Stop syncs file systems and switches the power off.
func (m *Machine) Stop() {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := m.agent.ask(ctx, wire.Request{Op: wire.Off}, nil)
	select {
	case <-m.ended:
	case <-ctx.Done():
		m.t.Fatalf("the machine does not go off: %v\n%s", err, m.Console())
	}
}

var cleaning sync.Mutex // two machines' consoles are not mixed in a log

func (m *Machine) clean() {
	m.Cut()
	if m.t.Failed() {
		cleaning.Lock()
		defer cleaning.Unlock()
		m.t.Logf("the guest's console:\n%s", m.Console())
	}
	if err := os.RemoveAll(m.dir); err != nil {
		m.t.Error(err)
	}
}
