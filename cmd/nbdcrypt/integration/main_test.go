//go:build integration

package integration

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

//go:embed packages.txt
var packages string

// program is the binary under test. TestMain builds it.
var program string

func TestMain(m *testing.M) {
	if os.Getenv(holdsKeys) != "" {
		hold()
		return
	}
	os.Exit(run(m))
}

// run builds the binary where every user may reach it, runs the tests and removes it.
func run(m *testing.M) int {
	// Debian's nbdsh needs Debian's Python.
	os.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin:"+os.Getenv("PATH"))
	if err := requirements(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, err := publicDir()
	if err == nil {
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "nbdcrypt")
		err = build(program)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// publicDir makes a directory that other users may pass through, with a name short enough for sockets in it.
func publicDir() (string, error) {
	dir, err := os.MkdirTemp("", "nbdcrypt")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

// build compiles the program as it is shipped, plus further build flags.
func build(to string, flags ...string) error {
	cmd := exec.Command("go", append(append([]string{"build", "-o", to}, flags...), "nbdcrypt/cmd/nbdcrypt")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %q: %w\n%s", flags, err, out)
	}
	return nil
}

// requirements names everything that is missing, not just the first.
func requirements() error {
	var missing []error
	if os.Geteuid() != 0 {
		missing = append(missing, errors.New("these tests mount file systems and act as other users: run them as root"))
	}
	for line := range strings.Lines(packages) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		for _, tool := range words[1:] {
			if !have(tool) {
				missing = append(missing, fmt.Errorf("%s is missing: install the package %s", tool, words[0]))
			}
		}
	}
	return errors.Join(missing...)
}

func have(tool string) bool {
	if module, ok := strings.CutPrefix(tool, "python3:"); ok {
		return exec.Command("python3", "-c", "import "+module).Run() == nil
	}
	_, err := exec.LookPath(tool)
	return err == nil
}
