package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"nbdcrypt/pkg/child"
	"nbdcrypt/pkg/control"
)

// TestMain makes the real main a command of the scripts, and this program what passphrases are worked on in.
func TestMain(m *testing.M) {
	if child.Main() {
		return
	}
	testscript.Main(m, map[string]func(){"nbdcrypt": main})
}

// TestScripts plays the scripts that need no daemon.
func TestScripts(t *testing.T) { testscript.Run(t, params("testdata/script")) }

// TestDaemonScripts plays those that start one.
func TestDaemonScripts(t *testing.T) {
	testscript.Run(t, params("testdata/script/daemon"))
}

func params(dir string) testscript.Params {
	return testscript.Params{
		Dir: dir,
		// Everything of a script lies in its own directory, whoever runs the tests.
		Setup: func(env *testscript.Env) error {
			for name, under := range map[string]string{"NBDCRYPT_STATE": "state", "NBDCRYPT_RUN": "run", "NBDCRYPT_ROOT_KEY": "key/root.key"} {
				env.Setenv(name, filepath.Join(env.WorkDir, under))
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "ready": ready, "capture": capture},
		Condition: func(name string) (bool, error) {
			if name != "root" {
				return false, fmt.Errorf("unknown condition %q", name)
			}
			return os.Geteuid() == 0, nil
		},
		RequireUniqueNames: true,
		// A daemon that should have refused to start must not hold the tests for long.
		Deadline: time.Now().Add(2 * time.Minute),
	}
}

// exits CODE PROGRAM ARGS... runs a program, which must end with that exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if failed := new(exec.ExitError); errors.As(err, &failed) {
		got = failed.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%q ended with %d, not %d: %s%s", args[1:], got, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

// ready waits until the daemon of $NBDCRYPT_RUN accepts.
func ready(ts *testscript.TestScript, neg bool, args []string) {
	socket := filepath.Join(ts.Getenv("NBDCRYPT_RUN"), control.SocketControl)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("no daemon: %v", err)
		}
	}
}

// capture NAME PATTERN sets a variable to what the pattern's group matched in the last stdout.
func capture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: capture NAME PATTERN")
	}
	found := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if len(found) != 2 {
		ts.Fatalf("%s is not in %s", args[1], ts.ReadFile("stdout"))
	}
	ts.Setenv(args[0], found[1])
}
