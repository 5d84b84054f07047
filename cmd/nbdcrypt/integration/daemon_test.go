//go:build integration

package integration

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for what should take a moment. Nothing depends on how long it really takes.
const patience = 60 * time.Second

// daemon is the real binary, serving in a directory of its own.
type daemon struct {
	t                           *testing.T
	program                     string
	dir, state, run, pool, root string
	env                         []string
	under, flags                []string // what serve is started by, and with
	public                      [][]byte // what is made of keys, and is no secret
	cmd                         *exec.Cmd
	log                         string // where its stderr is gathered, over all starts
}

// newDaemon lays out the directories and starts nothing yet.
func newDaemon(t *testing.T) *daemon {
	t.Helper()
	dir := tempDir(t)
	d := &daemon{t: t, program: program, dir: dir, state: dir + "/state", run: dir + "/run", pool: dir + "/pool",
		root: dir + "/key/root.key", log: dir + "/log"}
	t.Cleanup(func() {
		d.kill()
		if t.Failed() {
			log, _ := os.ReadFile(d.log)
			t.Logf("the daemon said:\n%s", log)
		}
	})
	return d
}

// startDaemon starts a daemon whose default project is granted.
func startDaemon(t *testing.T) *daemon {
	t.Helper()
	d := newDaemon(t)
	d.start()
	d.do("grant", "create")
	return d
}

// tempDir is as t.TempDir, but open to other users and short enough for sockets.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := publicDir()
	check(t, err)
	t.Cleanup(func() { check(t, os.RemoveAll(dir)) })
	return dir
}

// command is the binary with the environment that leads to this daemon's directories.
func (d *daemon) command(args ...string) *exec.Cmd {
	cmd := exec.Command(d.program, args...)
	cmd.Env = append(os.Environ(), "NBDCRYPT_STATE="+d.state, "NBDCRYPT_RUN="+d.run, "NBDCRYPT_ROOT_KEY="+d.root)
	cmd.Env = append(cmd.Env, d.env...)
	return cmd
}

// start starts the daemon and waits until it is ready.
func (d *daemon) start() {
	d.t.Helper()
	if line := d.tryStart(); !strings.HasPrefix(line, "ready nbd+unix:///") {
		d.kill()
		d.t.Fatalf("serve did not come up, it said %q", line)
	}
}

// tryStart starts the daemon and returns its first line, which is empty if it ended instead.
func (d *daemon) tryStart() string {
	d.t.Helper()
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	check(d.t, err)
	defer log.Close()
	d.cmd = d.command(append([]string{"serve", "--pool", d.pool}, d.flags...)...)
	if len(d.under) > 0 {
		d.cmd.Path, err = exec.LookPath(d.under[0])
		check(d.t, err)
		d.cmd.Args = append(slices.Clone(d.under), d.cmd.Args...)
	}
	d.cmd.Stderr = log
	stdout, err := d.cmd.StdoutPipe()
	check(d.t, err)
	check(d.t, d.cmd.Start())
	late := time.AfterFunc(patience, func() { d.cmd.Process.Kill() })
	defer late.Stop()
	line, _ := bufio.NewReader(stdout).ReadString('\n')
	return strings.TrimSpace(line)
}

// refusesToStart starts a daemon that must end with that code, and returns what it said.
func (d *daemon) refusesToStart(code int) string {
	d.t.Helper()
	from := len(d.said())
	if line := d.tryStart(); line != "" {
		d.kill()
		d.t.Fatalf("serve must not come up, it said %q", line)
	}
	if got := d.wait(); got != code {
		d.t.Fatalf("serve ended with %d, not %d: %s", got, code, d.said()[from:])
	}
	return d.said()[from:]
}

func (d *daemon) said() string {
	log, err := os.ReadFile(d.log)
	if !errors.Is(err, os.ErrNotExist) {
		check(d.t, err)
	}
	return string(log)
}

func (d *daemon) pid() int { return d.cmd.Process.Pid }

// wait returns the exit code of a daemon that is ending, -1 where a signal ended it.
func (d *daemon) wait() int {
	d.t.Helper()
	late := time.AfterFunc(patience, func() { d.cmd.Process.Kill() })
	defer late.Stop()
	err := d.cmd.Wait()
	code := d.cmd.ProcessState.ExitCode()
	d.cmd = nil
	if failed := new(exec.ExitError); err != nil && !errors.As(err, &failed) {
		d.t.Fatal(err)
	}
	return code
}

// stop ends the daemon as a service manager does; it must end well.
func (d *daemon) stop() {
	d.t.Helper()
	check(d.t, d.cmd.Process.Signal(syscall.SIGTERM))
	if code := d.wait(); code != 0 {
		d.t.Fatalf("the daemon ended with %d on SIGTERM", code)
	}
}

// kill ends the daemon as a power cut of the process does: nothing of it runs any more.
func (d *daemon) kill() {
	if d.cmd != nil {
		_ = d.cmd.Process.Kill()
		_ = d.cmd.Wait()
		d.cmd = nil
	}
}
