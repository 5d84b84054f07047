package keeper

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// steady has the process need as little as possible of what may lie on the very device that it keeps: while the link is dead nothing of
// that can be read or written. Each of it is done as far as the system allows; without it all works until memory is short.
func steady() {
	_ = os.Chdir("/")
	// No page that was used is dropped, to be read again from a disk. All that the runtime has only reserved would be 100 MiB.
	_ = unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
	// Memory for this process is not made by writing dirty pages, which may be the device's.
	_, _, _ = syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_IO_FLUSHER, 1, 0)
	// Who needs memory does not get that of the one process that can mend the device.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0)
}
