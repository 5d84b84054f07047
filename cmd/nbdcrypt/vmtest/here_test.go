//go:build vm

package vmtest

import (
	"bufio"
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/vmtest/machine"
)

// serveHere starts a daemon on this machine, with all of its files below dir, and returns a function that runs commands which must succeed.
func serveHere(t *testing.T, dir string) func(args ...string) string {
	t.Helper()
	daemon := command(dir, "serve")
	log, err := os.Create(dir + "/log")
	check(t, err)
	defer log.Close()
	daemon.Stderr = log
	out, err := daemon.StdoutPipe()
	check(t, err)
	check(t, daemon.Start())
	t.Cleanup(func() {
		_ = daemon.Process.Signal(syscall.SIGTERM)
		if err := daemon.Wait(); err != nil || t.Failed() {
			said, _ := os.ReadFile(dir + "/log")
			t.Logf("the daemon ended: %v; it said:\n%s", err, said)
		}
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.HasPrefix(line, "ready ") {
		t.Fatalf("the daemon does not come up: it said %q, %v", line, err)
	}
	return func(args ...string) string {
		t.Helper()
		out, err := command(dir, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("nbdcrypt %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
}

// command is one of the program, for the daemon of a directory.
func command(dir string, args ...string) *exec.Cmd {
	cmd := exec.Command(machine.Program(), args...)
	cmd.Env = append(os.Environ(), "NBDCRYPT_STATE="+dir+"/state", "NBDCRYPT_RUN="+dir+"/run", "NBDCRYPT_ROOT_KEY="+dir+"/key/root.key")
	return cmd
}

// containing returns a file below a directory that has these bytes in it, empty where none has.
func containing(t *testing.T, dir, what string) (found string) {
	t.Helper()
	check(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if bytes.Contains(content, []byte(what)) {
			found = path
		}
		return err
	}))
	return found
}
