package daemon

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/refusal"
)

// spareDescriptors are not for disks: clients, calls and the catalog, whose files come and go, need some too, and so do attaches
// that are under way at the same time.
const spareDescriptors = 128

// roomForDisk refuses one more disk where the process has hardly any descriptors left. (Go raises the soft limit to the hard one.)
func roomForDisk() error { return roomForDisks(1) }

// descriptorsOfDisk is what one takes, about.
const descriptorsOfDisk = 4

// roomForDisks is roomForDisk for several at once.
func roomForDisks(n int) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("daemon: the limit of descriptors: %w", err)
	}
	used, err := usedDescriptors()
	if err != nil {
		return err
	}
	if uint64(used)+spareDescriptors+uint64(max(0, n-1))*descriptorsOfDisk <= limit.Cur {
		return nil
	}
	return refusal.New(refusal.Failed, "detach a disk, or raise the limit of open files (LimitNOFILE= of systemd, ulimit -Hn)",
		"no room for another open disk: %d of %d descriptors are in use, and the last %d are for clients and the catalog: %w",
		used, limit.Cur, spareDescriptors, syscall.EMFILE)
}

// usedDescriptors is how many the process has open. Linux tells it since 6.2 as the size of a folder; before, they are counted.
func usedDescriptors() (int64, error) {
	const dir = "/proc/self/fd"
	info, err := os.Stat(dir)
	if err != nil {
		return 0, fmt.Errorf("daemon: %w", err)
	}
	if info.Size() > 0 {
		return info.Size(), nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, fmt.Errorf("daemon: %w", err)
	}
	return int64(len(entries)), nil
}
