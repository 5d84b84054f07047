package volume

import (
	"os"

	"golang.org/x/sys/unix"
)

// eagerFile has the kernel begin to store what is written, while the rest is still computed, and waits for nothing of it.
type eagerFile struct{ *os.File }

func (f eagerFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	_ = unix.SyncFileRange(int(f.Fd()), off, int64(n), unix.SYNC_FILE_RANGE_WRITE) // advice: the sync at the end counts
	return n, err
}
