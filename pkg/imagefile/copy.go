package imagefile

import (
	"bytes"
	"context"
	"errors"
	"io"

	"nbdcrypt/pkg/refusal"
)

const (
	// readStep is how much is read at a time.
	readStep = 1 << 20
	// block is the unit in which zeros are left out: that of a disk's map.
	block = 4096
)

// Copy gives out the disk: what is not zeros, in ascending order, and with progress how far it is. The bytes are lent for the time of the
// call. It returns how large the disk is.
func (i *Image) Copy(ctx context.Context, out func(p []byte, off int64) error, progress func(done int64)) (size int64, err error) {
	buf := make([]byte, readStep)
	defer clear(buf)
	off := int64(0)
	for off != i.Size {
		if err := ctx.Err(); err != nil { // also where all is holes
			return 0, err
		}
		data, end, err := i.reader.extent(off)
		if err != nil {
			return 0, i.failed(err)
		}
		if i.Size >= 0 {
			end = min(end, i.Size)
		}
		for data && off < end {
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			p := buf[:min(readStep, end-off)]
			n, err := i.reader.ReadAt(p, off)
			last := errors.Is(err, io.EOF) && i.Size < 0 // a pipe ends where it ends
			if err != nil && !last && (n < len(p) || !errors.Is(err, io.EOF)) {
				return 0, i.failed(err)
			}
			if err := dataOf(p[:n], off, out); err != nil {
				return 0, err
			}
			off += int64(n)
			progress(off)
			if last {
				return off, i.tooLong(off)
			}
			if i.Size < 0 && off > MaxSize {
				return 0, i.tooLong(off)
			}
		}
		off = max(off, end)
		progress(off)
	}
	return i.Size, nil
}

// tooLong refuses a pipe that no disk can hold, or that nothing came from.
func (i *Image) tooLong(size int64) error {
	if size > 0 && size <= MaxSize {
		return nil
	}
	return refusal.New(refusal.Usage, "a disk has 1 byte to 1 PiB", "%s gave %d bytes", i.path, size)
}

func (i *Image) failed(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return damaged(i.path, i.Format, "it is cut off: %v", err)
	}
	return refusal.New(refusal.Failed, "see to the file, then try again", "%s can't be read: %w", i.path, err)
}

// dataOf gives out the runs of blocks of p that are not zeros.
func dataOf(p []byte, off int64, out func([]byte, int64) error) error {
	for at := 0; at < len(p); {
		end := at
		for end < len(p) && !isZero(p[end:min(len(p), end+block)]) {
			end = min(len(p), end+block)
		}
		if end > at {
			if err := out(p[at:end], off+int64(at)); err != nil {
				return err
			}
		}
		at = end + block
	}
	return nil
}

var zeros [block]byte

func isZero(p []byte) bool { return bytes.Equal(p, zeros[:len(p)]) }
