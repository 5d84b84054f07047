// Package process runs other programs beside this one. They end with this one, also when it is killed, they are stopped for sure,
// and no signal ends this one before it has cleaned up after them.
//
// Where a program is to end with this one it is told to end with the thread that started it: that thread has to live as long, which
// runtime.LockOSThread sees to.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// stopTime is how long a process may take to end when asked to.
const stopTime = 20 * time.Second

// Quiet prepares a child process. It gets a process group of its own, because Ctrl-C in a terminal reaches every process
// of the group and the child is still needed while we clean up; and it ends with us. What in the environment leads to a daemon of
// the user's is left out, and settings, as KEY=VALUE, are put in.
func Quiet(cmd *exec.Cmd, settings ...string) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	for _, setting := range os.Environ() {
		if !strings.HasPrefix(setting, "NBDCRYPT_") && !strings.HasPrefix(setting, "NOTIFY_SOCKET=") {
			cmd.Env = append(cmd.Env, setting)
		}
	}
	cmd.Env = append(append(cmd.Env, settings...), "LC_ALL=C")
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Process is a child that runs beside us.
type Process struct {
	PID  int
	cmd  *exec.Cmd
	gone chan struct{} // closed when it has ended
	err  error         // how; to be read after gone
}

// Start starts a command that Quiet prepared.
func Start(cmd *exec.Cmd) (*Process, error) {
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", cmd.Args[0], err)
	}
	p := &Process{PID: cmd.Process.Pid, cmd: cmd, gone: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.gone)
	}()
	return p, nil
}

// Gone is closed when the process has ended.
func (p *Process) Gone() <-chan struct{} { return p.gone }

// Ended tells whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.gone:
		return true
	default:
		return false
	}
}

// Signal sends a signal and waits for the end of the process.
func (p *Process) Signal(ctx context.Context, sig syscall.Signal) error {
	ctx, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("sending %v: %w", sig, err)
	}
	return p.Wait(ctx)
}

// Wait waits for the end of the process.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.gone:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("process %d did not end: %w", p.PID, ctx.Err())
	}
}

// How is how a process ended that has: nil where it ended well.
func (p *Process) How() error { return p.err }

// Stop ends the process, by force where it doesn't end by itself. A nil process has ended.
func (p *Process) Stop(ctx context.Context) {
	if p == nil {
		return
	}
	if p.Signal(ctx, syscall.SIGTERM) != nil {
		_ = p.cmd.Process.Kill()
		<-p.gone
	}
}
