package daemon

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// harden keeps the process out of core dumps and out of the reach of other processes of the same user (prctl(2),
// PR_SET_DUMPABLE): keys are in its memory.
func harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("daemon: forbid core dumps: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("daemon: forbid core dumps: %w", err)
	}
	unix.Umask(0o077)
	return nil
}
