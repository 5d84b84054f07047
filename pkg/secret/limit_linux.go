package secret

import (
	"math"

	"golang.org/x/sys/unix"
)

// raiseLimit lifts the soft limit on locked memory to the hard one. A failure shows as ErrFull when it matters.
func raiseLimit() {
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &r) == nil && r.Cur < r.Max {
		r.Cur = r.Max
		_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &r)
	}
}

// lockLimit is how many bytes the process may lock, if anything limits that. CAP_IPC_LOCK lifts it (mlock(2), memfd_secret(2)).
func lockLimit() (bytes int64, limited bool) {
	var r unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &r)
	if err != nil || r.Cur > math.MaxInt64 || mayLock() {
		return 0, false
	}
	return int64(r.Cur), true
}

func mayLock() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&hdr, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_IPC_LOCK) != 0
}
