package shield

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// State is what protects this process now.
type State struct {
	Dumpable   bool // the process may be dumped and traced
	Core       bool // the limit on core files is not 0
	NoNewPrivs bool // on every thread
	// Signals have handlers and so would save the registers of any thread, faults of the thread itself and the end of the process aside.
	Signals     []string
	Swap        Swap
	Hibernation Hibernation
}

// Hibernation tells whether the kernel would write memory, locked memory too, to disk. While memfd_secret is in use it would not.
type Hibernation string

// The kinds of Hibernation.
const (
	HibernationPossible   Hibernation = "possible"
	HibernationImpossible Hibernation = "impossible"
	HibernationUnknown    Hibernation = "unknown"
)

// Look reads the state back from the kernel; nothing is remembered.
func Look() (State, error) {
	var s State
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		return s, fmt.Errorf("shield: is it dumpable: %w", err)
	}
	var core unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &core); err != nil {
		return s, fmt.Errorf("shield: the limit on core files: %w", err)
	}
	s.Dumpable, s.Core = dumpable != 0, core.Max != 0
	err = system{root: "/", device: deviceOf}.look(&s)
	return s, err
}

// system is where the kernel's files are.
type system struct {
	root   string
	device func(path string) (string, error)
}

func (y system) path(elem ...string) string {
	return filepath.Join(append([]string{y.root}, elem...)...)
}

func (y system) look(s *State) error {
	caught, err := y.caught()
	if err != nil {
		return err
	}
	s.Signals = (caught &^ handled).names()
	if s.NoNewPrivs, err = y.noNewPrivs(); err != nil {
		return err
	}
	s.Hibernation = y.hibernation()
	s.Swap, err = y.swap()
	return err
}

// caught are the signals that have a handler. Handlers are the process's, so that one thread speaks for all.
func (y system) caught() (set, error) {
	text, err := statusField(y.path("proc/self/status"), "SigCgt")
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(text, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("shield: caught signals: %w", err)
	}
	return set(n), nil
}

// noNewPrivs asks every thread. One that ends meanwhile does not count.
func (y system) noNewPrivs() (bool, error) {
	tasks := y.path("proc/self/task")
	threads, err := os.ReadDir(tasks)
	if err != nil {
		return false, fmt.Errorf("shield: threads: %w", err)
	}
	for _, thread := range threads {
		value, err := statusField(filepath.Join(tasks, thread.Name(), "status"), "NoNewPrivs")
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil || value != "1" {
			return false, err
		}
	}
	return true, nil
}

// statusField reads one line of a status file of proc(5).
func statusField(path, name string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("shield: %w", err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if value, is := strings.CutPrefix(lines.Text(), name+":"); is {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("shield: %s has no %s", path, name)
}

// hibernation reads what the kernel offers (Documentation/ABI/testing/sysfs-power). A container may hide it.
func (y system) hibernation() Hibernation {
	modes, err := os.ReadFile(y.path("sys/power/disk"))
	switch {
	case err == nil && strings.TrimSpace(string(modes)) == "[disabled]":
		return HibernationImpossible
	case err == nil:
		return HibernationPossible
	}
	if _, err := os.Stat(y.path("sys/power/state")); err == nil {
		return HibernationImpossible // a kernel that is built without it
	}
	return HibernationUnknown
}
