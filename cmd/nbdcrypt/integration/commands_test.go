//go:build integration

package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"nbdcrypt/pkg/control"
)

// result is what a command left behind.
type result struct {
	stdout, stderr string
	code           int
}

// execute runs a prepared command to its end.
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

// show is what `disk show` says.
func (d *daemon) show(name string) control.Disk { return get[control.Disk](d, "disk", "show", name) }

// checkClean runs `check`, which must find nothing.
func (d *daemon) checkClean() {
	d.t.Helper()
	if r := get[control.CheckReport](d, "check"); len(r.Findings) != 0 {
		d.t.Fatalf("check found %+v", r.Findings)
	}
}
