package process

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestSocketsFitTheDirectory(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("d", maxSocketPath))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", long)
	dir, err := TempDir("run/control.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(dir)
	if filepath.Dir(dir) == long || len(dir) > 60 {
		t.Error(dir)
	}
	if left, _ := os.ReadDir(long); len(left) != 0 {
		t.Error("left in the long one:", left)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Error(info, err)
	}
}

// TestQuiet: a child knows nothing of a daemon of the user's, and what it is told.
func TestQuiet(t *testing.T) {
	t.Setenv("NBDCRYPT_STATE", "/theirs")
	t.Setenv("NOTIFY_SOCKET", "/theirs")
	t.Setenv("LANG", "xx")
	cmd := Quiet(exec.Command("x"), "NBDCRYPT_RUN=/ours")
	for _, setting := range []string{"NBDCRYPT_RUN=/ours", "LC_ALL=C", "LANG=xx"} {
		if !slices.Contains(cmd.Env, setting) {
			t.Errorf("%s is missing", setting)
		}
	}
	if slices.Contains(cmd.Env, "NBDCRYPT_STATE=/theirs") || slices.Contains(cmd.Env, "NOTIFY_SOCKET=/theirs") || !cmd.SysProcAttr.Setpgid {
		t.Errorf("%q, %+v", cmd.Env, cmd.SysProcAttr)
	}
}

func started(t *testing.T, script string) *Process {
	t.Helper()
	p, err := Start(Quiet(exec.Command("sh", "-c", script)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop(context.Background()) })
	return p
}

func TestStop(t *testing.T) {
	p := started(t, "exec sleep 1000")
	if p.Ended() {
		t.Error("it ended at once")
	}
	p.Stop(t.Context())
	exit := new(exec.ExitError)
	if !p.Ended() || !errors.As(p.How(), &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Error(p.How())
	}
	p.Stop(t.Context())
	(*Process)(nil).Stop(t.Context())
}

// TestStopByForce: what does not listen is killed once the time for stopping is over.
func TestStopByForce(t *testing.T) {
	p := started(t, "trap '' TERM; echo; while :; do sleep 0.01; done")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if p.Stop(ctx); !p.Ended() {
		t.Error("it is still there")
	}
}

func TestStartFails(t *testing.T) {
	if _, err := Start(Quiet(exec.Command("/none/such"))); err == nil || !strings.HasPrefix(err.Error(), "starting /none/such: ") {
		t.Error(err)
	}
}
