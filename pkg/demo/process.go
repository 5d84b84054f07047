package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const (
	// readyTime is how long a daemon may take to accept.
	readyTime = 30 * time.Second
	// stopTime is how long a process may take to end when asked to.
	stopTime = 20 * time.Second
)

// process is a child that runs beside the tour.
type process struct {
	cmd  *exec.Cmd
	gone chan struct{} // closed when it has ended
	err  error         // how; to be read after gone
}

// launch starts a child that runs beside the tour, its stderr going to a log.
func (t *tour) launch(stdout io.Writer, words ...string) (*process, error) {
	log, err := os.OpenFile(t.path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("a log for %s: %w", words[0], err)
	}
	defer log.Close()
	p := &process{cmd: quiet(exec.Command(words[0], words[1:]...), t.path("run")), gone: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = stdout, log
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", words[0], err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.gone)
	}()
	return p, nil
}

// signal sends a signal and waits for the end of the process.
func (p *process) signal(ctx context.Context, sig syscall.Signal) error {
	ctx, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("sending %v: %w", sig, err)
	}
	return p.wait(ctx)
}

func (p *process) wait(ctx context.Context) error {
	select {
	case <-p.gone:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("process %d did not end: %w", p.cmd.Process.Pid, ctx.Err())
	}
}

func (p *process) ended() bool {
	select {
	case <-p.gone:
		return true
	default:
		return false
	}
}

// stop ends the process, by force where it doesn't end by itself. A nil process has ended.
func (p *process) stop(ctx context.Context) {
	if p == nil {
		return
	}
	if p.signal(ctx, syscall.SIGTERM) != nil {
		_ = p.cmd.Process.Kill()
		<-p.gone
	}
}

// serve starts the daemon and waits until it accepts.
func (t *tour) serve(ctx context.Context) error {
	words := []string{"serve", "--state", t.path("state"), "--run", t.path("run"), "--root-key", t.path("key", "root.key")}
	t.tell.beside(append([]string{"nbdcrypt"}, words...)...)
	out, in, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer out.Close()
	t.daemon, err = t.launch(in, append([]string{t.self}, words...)...)
	in.Close()
	if err != nil {
		return err
	}
	if err := out.SetReadDeadline(time.Now().Add(readyTime)); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = out.SetReadDeadline(time.Now()) })()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return fmt.Errorf("the daemon did not say that it is ready: %w", err)
	}
	t.tell.said(strings.ReplaceAll(line, t.dir, "$D"))
	return t.tell.all(check{strings.HasPrefix(line, "ready nbd+unix:///"), "the daemon accepts", line})
}

// showLog shows the end of what the daemon said, for who has to find out why a step failed.
func (t *tour) showLog(w io.Writer) {
	const most = 20
	log, err := os.ReadFile(t.path("log"))
	if err != nil {
		return
	}
	lines := strings.SplitAfter(string(log), "\n")
	fmt.Fprintf(w, "\nThe last lines of the daemon's log:\n%s\n", strings.Join(lines[max(0, len(lines)-most-1):], ""))
}
