//go:build integration

package integration

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a command on a pseudo-terminal of its own, with what it has shown.
type terminal struct {
	t      *testing.T
	cmd    *exec.Cmd
	master *os.File
	slave  *os.File
	ended  chan error

	mu    sync.Mutex
	shown strings.Builder
}

// onTerminal starts a command on a new pseudo-terminal (pty(7)).
func onTerminal(t *testing.T, cmd *exec.Cmd) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	check(t, err)
	t.Cleanup(func() { master.Close() })
	check(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	check(t, err)
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	check(t, err)
	t.Cleanup(func() { slave.Close() }) // open meanwhile, so that the terminal outlives the command
	p := &terminal{t: t, cmd: cmd, master: master, slave: slave, ended: make(chan error, 1)}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
	check(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	go func() { p.ended <- cmd.Wait() }()
	go func() { _, _ = io.Copy(p, master) }() // it ends with the terminal
	return p
}

// Write notes what the command has shown.
func (p *terminal) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shown.Write(b)
}

func (p *terminal) screen() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shown.String()
}

// answer waits until a prompt was shown so often and does not echo what is typed; then it types.
func (p *terminal) answer(prompt string, times int, typed string) {
	p.t.Helper()
	waitFor(p.t, "the command does not ask for "+prompt, func() bool { return strings.Count(p.screen(), prompt) >= times && !p.echoes() })
	_, err := io.WriteString(p.master, typed)
	check(p.t, err)
}

// shows waits until something was shown: what a command wrote last may be on its way when it has ended.
func (p *terminal) shows(text string) {
	p.t.Helper()
	waitFor(p.t, "the command does not show "+text, func() bool { return strings.Contains(p.screen(), text) })
}

// echoes tells whether the terminal shows what is typed.
func (p *terminal) echoes() bool {
	state, err := unix.IoctlGetTermios(int(p.slave.Fd()), unix.TCGETS)
	check(p.t, err)
	return state.Lflag&unix.ECHO != 0
}

// exit waits for the command's end, returns its exit code, and sees that the terminal echoes again.
func (p *terminal) exit() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatalf("%q does not end; it has shown %s", p.cmd.Args, p.screen())
	}
	if !p.echoes() {
		p.t.Error("the terminal does not echo any more")
	}
	return p.cmd.ProcessState.ExitCode()
}
