//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nbdcrypt/pkg/control"
)

// patience is how long a test waits for what should take a moment. Nothing depends on how long it really takes.
const patience = 60 * time.Second

// daemon is the real binary, serving in a directory of its own.
type daemon struct {
	t                           *testing.T
	program                     string
	dir, state, run, pool, root string
	env                         []string
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
	d.cmd = d.command("serve", "--pool", d.pool)
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

// result is what a command left behind.
type result struct {
	stdout, stderr string
	code           int
}

// exec runs a prepared command to its end.
func execute(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if failed := new(exec.ExitError); err != nil && !errors.As(err, &failed) {
		t.Fatalf("%q: %v", cmd.Args, err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// do runs a command that must succeed and returns its stdout.
func (d *daemon) do(args ...string) string {
	d.t.Helper()
	r := execute(d.t, d.command(args...))
	if r.code != 0 {
		d.t.Fatalf("nbdcrypt %q ended with %d: %s", args, r.code, r.stderr)
	}
	return r.stdout
}

// refused runs a command that must end with that code, and returns the error that it printed as JSON.
func (d *daemon) refused(code int, args ...string) control.Error {
	d.t.Helper()
	return refusedCommand(d.t, code, d.command(append(args, "--json")...))
}

func refusedCommand(t *testing.T, code int, cmd *exec.Cmd) control.Error {
	t.Helper()
	r := execute(t, cmd)
	if r.code != code {
		t.Fatalf("%q ended with %d, not %d: %s%s", cmd.Args, r.code, code, r.stdout, r.stderr)
	}
	var body control.ErrorBody
	// Warnings may stand before the error, which is the last line.
	lines := strings.Split(strings.TrimSpace(r.stderr), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &body); err != nil || body.Error == nil {
		t.Fatalf("%q: no error as JSON: %s", cmd.Args, r.stderr)
	}
	if body.Error.Code != code || body.Error.Message == "" {
		t.Fatalf("%q: the error does not say why: %s", cmd.Args, r.stderr)
	}
	return *body.Error
}

// get runs a command with --json that must succeed and decodes its result.
func get[T any](d *daemon, args ...string) (v T) {
	d.t.Helper()
	out := d.do(append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		d.t.Fatalf("nbdcrypt %q: %v in %s", args, err, out)
	}
	return v
}

// create makes a disk and returns what `disk show` says of it.
func (d *daemon) create(name, size string, flags ...string) control.Disk {
	d.t.Helper()
	return get[control.Disk](d, append([]string{"disk", "create", name, "--size", size}, flags...)...)
}

// attach attaches a disk and returns its URI.
func (d *daemon) attach(name string, flags ...string) string {
	d.t.Helper()
	return get[control.Attached](d, append([]string{"attach", name}, flags...)...).URI
}

// shows is what `disk show` says.
func (d *daemon) show(name string) control.Disk { return get[control.Disk](d, "disk", "show", name) }

// checkClean runs `check`, which must find nothing.
func (d *daemon) checkClean() {
	d.t.Helper()
	if r := get[control.CheckReport](d, "check"); len(r.Findings) != 0 {
		d.t.Fatalf("check found %+v", r.Findings)
	}
}

// tool runs a program that must succeed and returns what it said.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// waitFor waits until a condition holds.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v in vain: %s", patience, what)
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// files lists every file below the directories; one that vanishes meanwhile is left out.
func files(t *testing.T, dirs ...string) (paths []string) {
	t.Helper()
	for _, dir := range dirs {
		check(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			if err == nil && e.Type().IsRegular() {
				paths = append(paths, path)
			}
			return err
		}))
	}
	if len(paths) == 0 {
		t.Fatal(fmt.Errorf("no file in %q", dirs))
	}
	return paths
}
