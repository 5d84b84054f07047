//go:build integration

package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"nbdcrypt/cmd/nbdcrypt/vmtest/machine"
)

// program builds the real program once.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "demo-test-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "nbdcrypt")
	build := exec.Command("go", "build", "-o", path, "nbdcrypt/cmd/nbdcrypt")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, os.Chmod(dir, 0o755)
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := program(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// place is a directory for one run's temporary files; when the test ends nothing of the run may be left anywhere.
func place(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "d-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		nothingIsLeft(t, dir)
		os.Remove(dir)
	})
	return dir
}

func nothingIsLeft(t *testing.T, dir string) {
	t.Helper()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Error("left in the directory:", left, err)
	}
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil || bytes.Contains(mounts, []byte(dir)) {
		t.Errorf("mounts: %v\n%s", err, mounts)
	}
	if path, err := exec.LookPath("losetup"); err == nil {
		loops, err := exec.Command(path, "-a").Output()
		if err != nil || bytes.Contains(loops, []byte(dir)) {
			t.Errorf("loop devices: %v\n%s", err, loops)
		}
	}
	if pids := processesOf(dir); len(pids) > 0 {
		t.Error("processes that know the directory:", pids)
	}
}

// processesOf lists the processes that have a path in their command line or their environment.
func processesOf(path string) (pids []string) {
	for _, file := range []string{"cmdline", "environ"} {
		all, _ := filepath.Glob("/proc/[0-9]*/" + file) // the pattern is well-formed
		for _, one := range all {
			if text, err := os.ReadFile(one); err == nil && bytes.Contains(text, []byte(path)) {
				pids = append(pids, one)
			}
		}
	}
	return pids
}

// run is a demo in a child process, with an environment of its own.
type run struct {
	cmd *exec.Cmd
	out bytes.Buffer
	err bytes.Buffer
}

func prepare(t *testing.T, dir, path string, args ...string) *run {
	t.Helper()
	self, err := program()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	r := &run{cmd: exec.CommandContext(ctx, self, append([]string{"demo"}, args...)...)}
	r.cmd.Env = []string{"PATH=" + path, "TMPDIR=" + dir} // HOME is not there
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.err
	return r
}

func (r *run) good(t *testing.T) string {
	t.Helper()
	if err := r.cmd.Run(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, &r.out, &r.err)
	}
	out := r.out.String()
	wantSteps := fmt.Sprintf("All good: %d steps", len(story(!strings.Contains(out, "encrypted image: not here"))))
	if !strings.Contains(out, wantSteps) || r.err.Len() > 0 || strings.Contains(out, "\x1b") {
		t.Errorf("%s\nstderr: %s", out, &r.err)
	}
	return out
}

func needsRootAndTools(t *testing.T) {
	t.Helper()
	if _, can := chooseMedium().(fileSystem); !can {
		t.Skip(chooseMedium().name())
	}
}

func TestDemoMountsAFileSystem(t *testing.T) {
	needsRootAndTools(t)
	kernel, err := machine.Kernel()
	if err != nil {
		t.Fatal(err)
	}
	out := prepare(t, place(t), os.Getenv("PATH"), "--kernel", kernel).good(t)
	for _, part := range []string{"$ mkfs.ext4", "$ mount -o loop", "photo.jpg is the same", "refused, with exit code 4", "is Disabled", "\n      " + guestSays + "acorn-"} {
		if !strings.Contains(out, part) {
			t.Errorf("%q is missing in\n%s", part, out)
		}
	}
}

// TestDemoWithoutTools: it says what is missing, and shows all the rest.
func TestDemoWithoutTools(t *testing.T) {
	out := prepare(t, place(t), t.TempDir()).good(t)
	for _, part := range []string{"Without a file system", "nbdfuse", "apt install libnbd-bin e2fsprogs mount", "not found in $PATH: qemu-system-x86_64, syslinux, mcopy", "photo.jpg is the same", "stand 0 times"} {
		if !strings.Contains(out, part) {
			t.Errorf("%q is missing in\n%s", part, out)
		}
	}
	if strings.Contains(out, "$ mount") {
		t.Error("something was mounted")
	}
}

func TestDemoAsAnOrdinaryUser(t *testing.T) {
	r := prepare(t, place(t), os.Getenv("PATH"))
	if os.Geteuid() == 0 {
		r.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	if out := r.good(t); !strings.Contains(out, "only root can mount") {
		t.Error(out)
	}
}

// after runs the demo up to a line of its output, does something to it, and returns how it ended.
func (r *run) after(t *testing.T, line string, do func(pid int)) error {
	t.Helper()
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	r.cmd.Stdout = in
	err = r.cmd.Start()
	in.Close()
	if err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 4096)
	for done := false; err == nil; {
		var n int
		n, err = out.Read(buffer)
		r.out.Write(buffer[:n])
		if !done && strings.Contains(r.out.String(), line) {
			done = true
			do(r.cmd.Process.Pid)
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if !strings.Contains(r.out.String(), line) {
		t.Errorf("%q never came:\n%s", line, &r.out)
	}
	return r.cmd.Wait()
}

// TestDemoInterrupted stops it at several places, in the middle of a mounted file system among them.
func TestDemoInterrupted(t *testing.T) {
	kernel, err := machine.Kernel()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		line   string
		sig    syscall.Signal
		mounts bool
	}{
		"after the third step":   {"\n 4. ", syscall.SIGINT, false},
		"nbdfuse starts":         {"$ nbdfuse", syscall.SIGINT, true},
		"mkfs runs":              {"$ mkfs.ext4", syscall.SIGTERM, true},
		"mount runs":             {"$ mount", syscall.SIGINT, true},
		"mounted":                {"written: $D/mnt/letter.txt", syscall.SIGINT, true},
		"unmounting":             {"$ umount", syscall.SIGHUP, true},
		"the daemon starts":      {"$ nbdcrypt serve", syscall.SIGINT, false},
		"after the daemon's end": {"the daemon is dead", syscall.SIGHUP, false},
		"the server starts":      {"nbdcrypt server start", syscall.SIGTERM, true},
		"the server runs":        {"QEMU runs it", syscall.SIGINT, true},
	} {
		t.Run(name, func(t *testing.T) {
			if c.mounts {
				needsRootAndTools(t)
			}
			r := prepare(t, place(t), os.Getenv("PATH"), "--kernel", kernel)
			err := r.after(t, c.line, func(pid int) {
				// A second one, from somebody impatient, changes nothing.
				for range 2 {
					if err := syscall.Kill(pid, c.sig); err != nil {
						t.Error(err)
					}
				}
			})
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("ended with %v, not with exit code 1", err)
			}
			if !strings.Contains(r.out.String(), "Interrupted. Nothing is left behind.") || !strings.Contains(r.err.String(), "interrupted") {
				t.Errorf("%s\nstderr: %s", &r.out, &r.err)
			}
		})
	}
}

// TestAToolThatFails: its words reach the reader, and so does the end of the log.
func TestAToolThatFails(t *testing.T) {
	needsRootAndTools(t)
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "mkfs.ext4"), []byte("#!/bin/sh\necho no luck today >&2; exit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := prepare(t, place(t), bin+":"+os.Getenv("PATH"))
	if err := r.cmd.Run(); err == nil || r.cmd.ProcessState.ExitCode() != 1 {
		t.Error("ended with", err)
	}
	if text := r.err.String(); !strings.Contains(text, "no luck today") || !strings.Contains(text, "step 7") || !strings.Contains(text, "level=INFO") {
		t.Error(text)
	}
	if text := r.out.String(); !strings.Contains(text, "✗ this step failed") || !strings.Contains(text, "Nothing is left behind.") || strings.Contains(text, "All good") {
		t.Error(text)
	}
}

// TestDemoWithoutAReader: `nbdcrypt demo | head` leaves nothing behind either.
func TestDemoWithoutAReader(t *testing.T) {
	r := prepare(t, place(t), os.Getenv("PATH"))
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out.Close()
	r.cmd.Stdout = in
	err = r.cmd.Run()
	in.Close()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("ended with %v, not with exit code 1; stderr: %s", err, &r.err)
	}
	if !strings.Contains(r.err.String(), "broken pipe") || strings.Contains(r.err.String(), "level=") {
		t.Errorf("that is no failure of the daemon: %s", &r.err)
	}
}

// TestAFailureWhileMounted: a step that fails, or panics, or loses its daemon while the file system is mounted, is
// cleaned up after.
func TestAFailureWhileMounted(t *testing.T) {
	needsRootAndTools(t)
	self, err := program()
	if err != nil {
		t.Fatal(err)
	}
	for name, last := range map[string]func(context.Context, *tour) error{
		"fails":  func(context.Context, *tour) error { return errors.New("so it ends") },
		"panics": func(context.Context, *tour) error { panic("so it ends") },
		"loses the daemon": func(ctx context.Context, trip *tour) error {
			return errors.Join(trip.daemon.Signal(ctx, syscall.SIGKILL), errors.New("so it ends"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("TMPDIR", place(t))
			var out bytes.Buffer
			trip, err := newTour(&out, Options{})
			if err != nil {
				t.Fatal(err)
			}
			trip.self = self
			err = trip.play(t.Context(), append(story(true)[:6:6], step{"mounted", func(ctx context.Context, trip *tour) error {
				if _, err := trip.showAsFile(ctx, trip.uri); err != nil {
					return err
				}
				if err := trip.tool(ctx, "mkfs.ext4", "-q", trip.path("nbd", "disk")); err != nil {
					return err
				}
				return trip.mounted(ctx, func() error { return last(ctx, trip) })
			}}))
			if at := mountsUnder(trip.dir); len(at) != 2 || len(loopsUnder(trip.dir)) != 1 {
				t.Errorf("a positive control: %v is mounted", at)
			}
			if err = finish(t.Context(), trip, err); err == nil || !strings.Contains(err.Error(), "so it ends") {
				t.Error(err)
			}
		})
	}
}
