// Package cryptdev is the encrypting device over a stack of layers: what the NBD server serves. It is where sectors meet
// keys: below it there is ciphertext only (or, for a plain disk, what the client wrote), above it plaintext only.
package cryptdev

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"nbdcrypt/pkg/volume/layer"
	"nbdcrypt/xts"
)

const (
	// pieceSize is how much is read and decrypted at a time: source and buffer stay in the second-level cache.
	pieceSize = 256 << 10
	// longSize is how much is encrypted and written at a time where a call has so much: a file system makes room for what it lacks
	// by the write, and one of this length costs it half of what four do.
	longSize = 1 << 20
)

// buffers are shared by all disks, so that an idle one has none. Most calls need a short one, many at a time.
type buffers struct{ short, long sync.Pool }

func newBuffers(make func(size int) *[]byte) *buffers {
	b := new(buffers)
	b.short.New = func() any { return make(pieceSize) }
	b.long.New = func() any { return make(longSize) }
	return b
}

var pieces = newBuffers(func(size int) *[]byte { b := make([]byte, size); return &b })

// Layer is one layer of a disk's stack with the cipher of its DEK, nil where the disk is plain.
type Layer struct {
	*layer.Layer
	Cipher *xts.Cipher
	// Size is the size of the disk when the layer was its top; what lies past it reads as zeros.
	Size int64
}

// Device is a disk: it implements nbd.Device and its abilities without an import of nbd.
type Device struct {
	stack     atomic.Pointer[stack]
	changing  sync.Mutex   // held by whoever puts another stack there
	using     sync.RWMutex // held shared by who looks at layers without a lock of their ranges
	sector    int
	readOnly  bool
	hideHoles bool
	size      atomic.Int64
	buffers   *buffers
}

// New makes a device of size bytes over a stack of open layers, top first.
func New(layers []Layer, size int64, readOnly bool) *Device {
	d := &Device{sector: layers[0].SectorSize, readOnly: readOnly, buffers: pieces}
	d.stack.Store(&stack{layers: slices.Clone(layers)})
	d.size.Store(size)
	return d
}

// Size is the disk's size, exactly.
func (d *Device) Size() (int64, error) { return d.size.Load(), nil }

// Grow lets clients see a new size, for which the top layer has room already.
func (d *Device) Grow(size int64) { d.size.Store(size) }

// BlockSizes are the sector, as the smallest request that needs no read-modify-write, and the map's block.
func (d *Device) BlockSizes() (minimum, preferred uint32) { return uint32(d.sector), layer.BlockSize }

// Failed is the sync that failed since the disk was attached.
func (d *Device) Failed() error { return d.stack.Load().failed() }

// check refuses what is outside of the disk, and changes of a disk that is read-only.
func (d *Device) check(off, n int64, change bool) error {
	if size := d.size.Load(); off < 0 || n < 0 || off > size-n {
		return fmt.Errorf("cryptdev: bytes %d to %d are outside of a disk of %d: %w", off, off+n, size, syscall.EINVAL)
	}
	if change && d.readOnly {
		return fmt.Errorf("cryptdev: the disk is read-only: %w", syscall.EPERM)
	}
	return nil
}

// Sync makes every answered write, zero and trim durable.
func (d *Device) Sync() error {
	if d.readOnly {
		return nil
	}
	return d.stack.Load().flush()
}

// buffer has room for n bytes, longSize at most.
func (d *Device) buffer(n int64) *[]byte {
	if n > pieceSize {
		return d.buffers.long.Get().(*[]byte)
	}
	return d.buffers.short.Get().(*[]byte)
}

// release gives a buffer back. Whoever has put plaintext into it clears it first.
func (d *Device) release(b *[]byte) {
	if len(*b) > pieceSize {
		d.buffers.long.Put(b)
	} else {
		d.buffers.short.Put(b)
	}
}
