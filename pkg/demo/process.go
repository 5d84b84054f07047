package demo

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"nbdcrypt/pkg/process"
)

// readyTime is how long a daemon may take to accept.
const readyTime = 30 * time.Second

// launch starts a child that runs beside the tour, its stderr going to a log.
func (t *tour) launch(stdout io.Writer, words ...string) (*process.Process, error) {
	log, err := os.OpenFile(t.path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("a log for %s: %w", words[0], err)
	}
	defer log.Close()
	cmd := t.quiet(exec.Command(words[0], words[1:]...))
	cmd.Stdout, cmd.Stderr = stdout, log
	return process.Start(cmd)
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
