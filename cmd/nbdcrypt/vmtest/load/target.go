package load

import (
	"context"
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"nbdcrypt/nbd/nbdclient"
)

// target is what a load writes to.
type target interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	// WriteAtFUA writes durably, and says nothing about other writes.
	WriteAtFUA(p []byte, off int64) (int, error)
	Zero(off, n int64, keep bool) error
	Flush() error
	Close() error
}

// open opens an export by its URI, else a device or file by its path.
func open(name string) (target, error) {
	if strings.HasPrefix(name, "nbd") {
		return dial(name)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	return file{f}, err
}

// export flushes on another connection than it writes on: they are one domain.
type export struct {
	*nbdclient.Client
	other *nbdclient.Client
}

func dial(uri string) (target, error) {
	a, err := nbdclient.Dial(context.Background(), uri)
	if err != nil {
		return nil, err
	}
	b, err := nbdclient.Dial(context.Background(), uri)
	if err != nil {
		return nil, errors.Join(err, a.Disconnect())
	}
	return export{a, b}, nil
}

func (e export) Zero(off, n int64, keep bool) error {
	if keep {
		return e.Client.Zero(off, n, true)
	}
	return e.Trim(off, n)
}

func (e export) Flush() error { return e.other.Flush() }
func (e export) Close() error { return errors.Join(e.Disconnect(), e.other.Disconnect()) }

// file is a file, or a block device, by way of the page cache.
type file struct{ *os.File }

func (f file) WriteAtFUA(p []byte, off int64) (int, error) {
	return unix.Pwritev2(int(f.Fd()), [][]byte{p}, off, unix.RWF_DSYNC)
}

// Zero keeps the space whatever keep says: punching asks more of a block device than each kernel can do.
func (f file) Zero(off, n int64, _ bool) error {
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func (f file) Flush() error { return f.Sync() }
