// Package durable makes what was written survive a power cut: the data of a file, and the names in a folder.
package durable

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Data is fdatasync(2): data and size, not times. Some file systems (FUSE, network ones) let a signal end it, which says
// nothing of the data: it is asked again, since a failed sync is never forgiven.
func Data(f *os.File) error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Dir makes the names in a folder durable: files that were made, renamed or removed there.
func Dir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("durable: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("durable: sync %s: %w", path, err)
	}
	return nil
}
