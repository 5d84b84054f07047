package shield

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const childOf = "SHIELD_TEST_CHILD_OF"

// raised runs the rest of a test in a process of its own, where Raise was called. It returns in that process only.
func raised(t *testing.T) bool {
	t.Helper()
	if os.Getenv(childOf) == t.Name() {
		if err := Raise(); err != nil {
			t.Fatal(err)
		}
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), childOf+"="+t.Name())
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

func cgo() bool {
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0)
	return errno == unix.ENOTSUP
}

func TestRaiseIsSeenByLook(t *testing.T) {
	if before, err := Look(); err != nil || len(before.Signals) < 20 {
		t.Errorf("before: %+v, %v", before, err)
	}
	if !raised(t) {
		return
	}
	exec.Command("true").Run() // starts threads
	s, err := Look()
	if err != nil || s.Dumpable || s.Core || s.NoNewPrivs == cgo() || len(s.Signals) != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	if old := unix.Umask(0o077); old != 0o077 {
		t.Errorf("the umask is %o", old)
	}
}

const ignoredBefore = "SHIELD_TEST_IGNORED"

// statusOfChild is what the kernel says of a child.
func statusOfChild(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("cat", "/proc/self/status").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestChildrenStartClean: nothing of what Raise does to signals reaches them, save that they gain no privileges. What whoever runs
// the test ignores they ignore as ever.
func TestChildrenStartClean(t *testing.T) {
	if os.Getenv(ignoredBefore) == "" {
		_, after, _ := strings.Cut(statusOfChild(t), "SigIgn:")
		ignored, _, _ := strings.Cut(after, "\n")
		t.Setenv(ignoredBefore, "SigIgn:"+ignored+"\n")
	}
	if !raised(t) {
		return
	}
	out := statusOfChild(t)
	for _, want := range []string{os.Getenv(ignoredBefore), "SigBlk:\t0000000000000000", "NoNewPrivs:\t1"} {
		if !strings.Contains(out, want) && !(cgo() && strings.HasPrefix(want, "NoNew")) {
			t.Errorf("a child's status lacks %q:\n%s", want, out)
		}
	}
	var ended *exec.ExitError
	if err := exec.Command("sh", "-c", "exit 3").Run(); !errors.As(err, &ended) || ended.ExitCode() != 3 {
		t.Errorf("exit code of a child: %v", err)
	}
}

// TestSilencedSignalsDoNothing sends every one many times to a process whose loops the runtime wants to preempt.
func TestSilencedSignalsDoNothing(t *testing.T) {
	if !raised(t) {
		return
	}
	done := make(chan int)
	for range 4 {
		go func() {
			n := 0
			for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); n++ {
				_ = make([]byte, 1<<16)
			}
			done <- n
		}()
	}
	for range 200 {
		for n := unix.Signal(1); n <= 64; n++ {
			if handled.has(n) || setOf(unix.SIGKILL, unix.SIGSTOP, unix.SIGQUIT, unix.SIGABRT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU).has(n) {
				continue
			}
			if err := unix.Kill(os.Getpid(), n); err != nil {
				t.Fatal(err)
			}
		}
		runtime.GC()
	}
	for range 4 {
		if n := <-done; n == 0 {
			t.Error("no progress")
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	if _, err := w.Write([]byte("x")); !errors.Is(err, unix.EPIPE) {
		t.Errorf("writing into a pipe without a reader: %v", err)
	}
}

// TestTermIsHeardOnceThenEnds is what main does: the first one is told, the second one ends the process.
func TestTermIsHeardOnceThenEnds(t *testing.T) {
	for _, n := range []unix.Signal{unix.SIGTERM, unix.SIGINT} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestTermChild$")
		cmd.Env = append(os.Environ(), childOf+"="+unix.SignalName(n))
		out, err := cmd.CombinedOutput()
		status := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if !status.Signaled() || status.Signal() != n || !strings.Contains(string(out), "heard") {
			t.Errorf("%v: %v\n%s", n, err, out)
		}
	}
}

func TestTermChild(t *testing.T) {
	n := unix.SignalNum(os.Getenv(childOf))
	if n == 0 {
		t.Skip("a child of TestTermIsHeardOnceThenEnds")
	}
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, n)
	if err := Raise(); err != nil {
		t.Fatal(err)
	}
	unix.Kill(os.Getpid(), n)
	<-heard
	signal.Stop(heard)
	os.Stdout.WriteString("heard")
	unix.Kill(os.Getpid(), n)
	select {}
}

// TestFaultsStillPanic: a fault of our own must go on being a panic that a call can be saved from.
func TestFaultsStillPanic(t *testing.T) {
	if !raised(t) {
		return
	}
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	var nothing *[1]int
	t.Log(nothing[0])
}

// TestQuitAndAbortPrintNothing: Go's own answer would have registers in it.
func TestQuitAndAbortPrintNothing(t *testing.T) {
	for _, n := range []unix.Signal{unix.SIGQUIT, unix.SIGABRT} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestQuitChild$")
		cmd.Env = append(os.Environ(), childOf+"="+unix.SignalName(n))
		out, err := cmd.CombinedOutput()
		status := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if !status.Signaled() || status.Signal() != n || status.CoreDump() || len(out) > 0 {
			t.Errorf("%v: %v\n%s", n, err, out)
		}
	}
}

func TestQuitChild(t *testing.T) {
	n := unix.SignalNum(os.Getenv(childOf))
	if n == 0 {
		t.Skip("a child of TestQuitAndAbortPrintNothing")
	}
	if err := Raise(); err != nil {
		t.Fatal(err)
	}
	unix.Kill(os.Getpid(), n)
	select {}
}
