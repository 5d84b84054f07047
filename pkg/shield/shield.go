// Package shield keeps what registers and memory of this process hold from being copied to where others look: signal stacks, core dumps,
// debuggers, swap. Look tells what is in force, as the kernel says.
//
// A signal that has a handler makes the kernel save all registers on a stack in ordinary memory, where they stay. Go handles
// nearly every signal, and sends itself SIGURG many times a second to preempt loops. Raise takes the handlers away instead of blocking
// the signals, because the runtime unblocks SIGURG, SIGCHLD, SIGQUIT, SIGPROF and others on every thread it starts
// (runtime.minitSignalMask), while it never sets a handler again unless os/signal.Notify asks for a signal that had none.
// A signal without a handler is dropped by the kernel, or ends the process, in all threads alike. What follows from that:
//   - The runtime asks loops to give way at the next function call only, as before Go 1.14 (runtime.suspendG never waits for the
//     signal to be answered). A long loop must not be free of calls, or everybody waits for it.
//   - SIGTERM, SIGINT and SIGHUP are handled as ever. They go to the main thread where it takes them (signal(7)), which
//     the program therefore keeps idle; runtime.LockOSThread in an init function does that.
//   - Children start clean: os/exec resets every signal that Go handles (runtime.clearSignalHandlers), and Go still believes that it does.
//     SIGCHLD gets its default, which is to be dropped, since to ignore it would take their exit codes away from os/exec.
//   - os/signal.Notify of a signal that Raise has silenced would hear nothing. It belongs into handled first.
package shield

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Raise protects a process that holds keys until it ends. It comes before the first key.
func Raise() error {
	return errors.Join(Harden(), noNewPrivs(), silence())
}

// Harden keeps the process out of core dumps and out of the reach of debuggers, also those of the same user, and its files to its
// user. Not being dumpable is what counts (PR_SET_DUMPABLE of prctl(2)): with a program in core_pattern, the limit alone stops no core.
func Harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("shield: forbid core dumps: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("shield: forbid core dumps: %w", err)
	}
	unix.Umask(0o077)
	return nil
}

// noNewPrivs keeps children from gaining privileges. It is each thread's own; programs built with cgo can't set it for all, and
// Look tells then.
func noNewPrivs() error {
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
	if errno != 0 && errno != unix.ENOTSUP {
		return fmt.Errorf("shield: forbid new privileges: %w", errno)
	}
	return nil
}
