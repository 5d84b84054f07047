package nbd

import "io"

// Device is what an export serves. It speaks plain types, and its errors wrap a syscall.Errno where the client
// should see a particular one, so that a device needs no import of this package. It has the method set of
// go-nbd's backend.Backend: a Device can be served by that server too.
//
// Every method may be called from many goroutines at once, with any offset and length inside the device.
type Device interface {
	io.ReaderAt
	io.WriterAt
	// Size is the size in bytes at this moment; it may grow while the device is exported.
	Size() (int64, error)
	// Sync returns once every write, zero and trim that was answered before the call is durable.
	Sync() error
}

// FUAWriter is a device that can write one range durably without flushing the rest. Without it the server
// writes and then calls Sync.
type FUAWriter interface {
	WriteAtFUA(p []byte, off int64) (int, error)
}

// Trimmer is a device that can give up a range, which then reads as zeros.
type Trimmer interface {
	TrimAt(off, n int64) error
}

// Zeroer is a device that can make a range read as zeros without being sent them. With noHole the space stays
// reserved, so that a later write there can't meet ENOSPC.
type Zeroer interface {
	ZeroAt(off, n int64, noHole bool) error
}

// NowaitReader is a device that can tell a read that would wait for storage. The error wraps syscall.EAGAIN then, and p
// holds nothing of use.
type NowaitReader interface {
	ReadAtNowait(p []byte, off int64) (int, error)
}

// Extenter is a device that knows which parts of it are holes. Extent describes the longest run that begins at off and
// ends at off+n at the latest: hole says that it takes no space, zero that it reads as zeros.
type Extenter interface {
	Extent(off, n int64) (length int64, hole, zero bool, err error)
}

// Cacher is a device that can be told that a range will be read soon. It returns without waiting for storage.
type Cacher interface {
	CacheAt(off, n int64) error
}

// FastZeroer is a device that can zero some ranges much faster than by writing them. Where it can't, the error wraps
// syscall.ENOTSUP, is there at once, and nothing has changed.
type FastZeroer interface {
	ZeroAtFast(off, n int64, noHole bool) error
}

// BlockSizer is a device that knows which requests it serves best.
type BlockSizer interface {
	// BlockSizes are the minimum that is advertised (smaller requests are served all the same) and the preferred.
	BlockSizes() (minimum, preferred uint32)
}
