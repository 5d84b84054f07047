// Package cryptdev is the encrypting device over a stack of layers: what the NBD server serves. It is where sectors meet
// keys: below it there is ciphertext only (or, for a plain disk, what the client wrote), above it plaintext only.
package cryptdev

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"

	"nbdcrypt/pkg/volume/layer"
	"nbdcrypt/xts"
)

// pieceSize is how much is encrypted and written, or read and decrypted, at a time: source and buffer stay in the
// second-level cache.
const pieceSize = 256 << 10

// pieces are buffers of that size, shared by all disks: an idle one has none.
var pieces = sync.Pool{New: func() any { b := make([]byte, pieceSize); return &b }}

// Layer is one layer of a disk's stack with the cipher of its DEK, nil where the disk is plain.
type Layer struct {
	*layer.Layer
	Cipher *xts.Cipher
	// Size is the size of the disk when the layer was its top; what lies past it reads as zeros.
	Size int64
}

// Device is a disk: it implements nbd.Device and its abilities without an import of nbd.
type Device struct {
	stack     []Layer // top first
	sector    int
	readOnly  bool
	hideHoles bool
	size      atomic.Int64
	buffers   *sync.Pool
}

// New makes a device of size bytes over a stack of open layers, top first.
func New(stack []Layer, size int64, readOnly bool) *Device {
	d := &Device{stack: stack, sector: stack[0].SectorSize, readOnly: readOnly, buffers: &pieces}
	d.size.Store(size)
	return d
}

func (d *Device) top() *Layer { return &d.stack[0] }

// Size is the disk's size, exactly.
func (d *Device) Size() (int64, error) { return d.size.Load(), nil }

// Grow lets clients see a new size, for which the top layer has room already.
func (d *Device) Grow(size int64) { d.size.Store(size) }

// BlockSizes are the sector, as the smallest request that needs no read-modify-write, and the map's block.
func (d *Device) BlockSizes() (minimum, preferred uint32) { return uint32(d.sector), layer.BlockSize }

// Failed is the sync that failed since the disk was attached.
func (d *Device) Failed() error { return d.top().Failed() }

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
	return d.top().Flush()
}

func (d *Device) buffer() *[]byte { return d.buffers.Get().(*[]byte) }

// release gives a buffer back. Whoever has put plaintext into it clears it first.
func (d *Device) release(b *[]byte) { d.buffers.Put(b) }
