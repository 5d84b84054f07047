// Package imagefile reads disk images of other programs: raw files, block devices and pipes, qcow2, and by way of qemu-nbd
// vmdk, vhdx and vdi. A file is opened as whoever runs the program, and nothing that it names is: an image that stands on
// another file, or keeps its data in one, is refused. What is read goes through memory alone.
package imagefile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"nbdcrypt/pkg/refusal"
)

// The formats by their names.
const (
	Auto  = "auto"
	Raw   = "raw"
	QCOW2 = "qcow2"
	VMDK  = "vmdk"
	VHDX  = "vhdx"
	VDI   = "vdi"
)

// Formats are those that Open takes.
var Formats = []string{Auto, Raw, QCOW2, VMDK, VHDX, VDI}

// MaxSize is the largest disk, 1 PiB (docs/disk-format.md).
const MaxSize = 1 << 50

// Image is an image that is open for reading.
type Image struct {
	// Format is what it is, never Auto.
	Format string
	// Size is how large the disk in it is; -1 for a pipe, which ends where it ends.
	Size int64
	// Notes say what of the file is not taken along.
	Notes []string

	path   string
	reader reader
	close  func() error
}

// reader reads the disk in an image.
type reader interface {
	io.ReaderAt
	// extent tells whether there may be data at off, and up to where that is so.
	extent(off int64) (data bool, end int64, err error)
}

// Open opens a file, "-" for in, in one of Formats. Its header is checked before anything is made of it.
func Open(ctx context.Context, path, format string, in io.Reader) (*Image, error) {
	if !slices.Contains(Formats, format) {
		return nil, refusal.New(refusal.Usage, "use one of "+strings.Join(Formats, ", "), "%q is no format of images", format)
	}
	if path == "-" {
		return openPipe(ctx, "standard input", in, format, func() error { return nil })
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, refusal.New(refusal.Failed, "is the path right, and may you read it?", "the image can't be opened: %w", err)
	}
	i, err := openFile(ctx, file, path, format)
	if err != nil {
		file.Close()
		return nil, err
	}
	return i, nil
}

func openFile(ctx context.Context, file *os.File, path, format string) (*Image, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	switch mode := info.Mode(); {
	case mode.IsDir():
		return nil, refusal.New(refusal.Usage, "name a file", "%s is a directory", path)
	case !mode.IsRegular() && (mode&os.ModeDevice == 0 || mode&os.ModeCharDevice != 0):
		return openPipe(ctx, path, file, format, file.Close)
	}
	length, err := file.Seek(0, io.SeekEnd) // a block device has no other size
	if err != nil {
		return nil, fmt.Errorf("how long is %s? %w", path, err)
	}
	if format == Auto {
		if format, err = detect(path, file); err != nil {
			return nil, err
		}
	}
	i := &Image{Format: format, path: path, close: file.Close}
	switch format {
	case Raw:
		i.Size, i.reader = length, &rawFile{file, length}
	case QCOW2:
		err = i.openQCOW2(ctx, file, length)
	default:
		err = i.openWithQEMU(ctx, file)
	}
	if err == nil && (i.Size <= 0 || i.Size > MaxSize) {
		err = errors.Join(refusal.New(refusal.Usage, "a disk has 1 byte to 1 PiB", "the disk in %s has %d bytes", path, i.Size), i.undo(file))
	}
	return i, err
}

// undo closes what was opened besides the file.
func (i *Image) undo(file *os.File) error {
	if i.Format == Raw || i.Format == QCOW2 {
		return nil
	}
	return i.Close()
}

// Close ends the reading.
func (i *Image) Close() error { return i.close() }

// damaged is a refusal of an image that its own format does not allow.
func damaged(path, format, why string, args ...any) error {
	return refusal.New(refusal.Damaged, "get the file again, or mend it with `qemu-img check`", "%s is damaged, or no %s: %s", path, format, fmt.Sprintf(why, args...))
}

// leansOn is a refusal of an image that is not all in its file.
func leansOn(path, what string) error {
	return refusal.New(refusal.Usage, "make one file of it first (`qemu-img convert`; its result is not encrypted), or send the whole disk through a pipe: `nbdcopy ... - | nbdcrypt image create NAME --from-file -`",
		"%s is refused: it %s, and no file but the one that was named is opened", path, what)
}
