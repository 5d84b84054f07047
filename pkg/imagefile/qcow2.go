package imagefile

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/lima-vm/go-qcow2reader/image/qcow2"

	"nbdcrypt/pkg/refusal"
)

// The library reads qcow2 well, and believes its header: it allocates what that says, and opens the files that it names. So the
// header is held against the format, as QEMU does, before the library sees it, and the library gets the file without its name.

// header is as much of a qcow2 header as decides what happens.
type header struct {
	version, clusterBits, crypt, l1Size, snapshots uint32
	backing, size, l1                              uint64
	incompatible                                   uint64
	length                                         uint32
	compression                                    byte
}

// Bits of the incompatible features. A dirty image has wrong reference counts, which nobody needs who only reads.
const (
	featureDirty       = 1 << 0
	featureCorrupt     = 1 << 1
	featureDataFile    = 1 << 2
	featureCompression = 1 << 3
	featureExtendedL2  = 1 << 4
)

const (
	headerV2, headerV3 = 72, 104
	maxClusterBits     = 21
	maxL1              = 32 << 20 // bytes, as in QEMU
)

func parseHeader(b []byte) (h header) {
	number := binary.BigEndian.Uint32
	h = header{version: number(b[4:]), clusterBits: number(b[20:]), crypt: number(b[32:]), l1Size: number(b[36:]), snapshots: number(b[60:]),
		backing: binary.BigEndian.Uint64(b[8:]), size: binary.BigEndian.Uint64(b[24:]), l1: binary.BigEndian.Uint64(b[40:]), length: headerV2}
	if h.version >= 3 {
		h.incompatible, h.length = binary.BigEndian.Uint64(b[72:]), number(b[100:])
	}
	if h.version >= 3 && h.length > headerV3 {
		h.compression = b[104]
	}
	return h
}

// refused says what keeps an image from being read. length is the file's.
func (h header) refused(path string, length int64) error {
	switch {
	case h.version != 2 && h.version != 3:
		return damaged(path, QCOW2, "it has version %d", h.version)
	case h.backing != 0:
		return leansOn(path, "stands on a backing file")
	case h.incompatible&featureDataFile != 0:
		return leansOn(path, "keeps its data in another file")
	case h.crypt != 0:
		return refusal.New(refusal.Usage, "open it with QEMU and its own key, and send what it holds through a pipe: `nbdcopy ... - | nbdcrypt image create NAME --from-file -`",
			"%s is refused: it is encrypted already, by QEMU", path)
	case h.incompatible&featureCorrupt != 0:
		return damaged(path, QCOW2, "QEMU has marked it as corrupt")
	case h.incompatible&^(featureDirty|featureCompression|featureExtendedL2) != 0:
		return refusal.New(refusal.Usage, "convert it first: `qemu-img convert -O qcow2`", "%s is refused: it has features that are not known here (%#x)", path, h.incompatible)
	case h.clusterBits < 9 || h.clusterBits > maxClusterBits:
		return damaged(path, QCOW2, "its clusters have 2^%d bytes", h.clusterBits)
	case h.version == 3 && (h.length < headerV3 || h.length > 1<<h.clusterBits):
		return damaged(path, QCOW2, "its header has %d bytes", h.length)
	case h.size == 0 || h.size > MaxSize:
		return refusal.New(refusal.Usage, "a disk has 1 byte to 1 PiB", "the disk in %s has %d bytes", path, h.size)
	}
	return h.tableRefused(path, length)
}

// tableRefused holds the first table against the disk's size and the file's: nothing is allocated because of a number alone.
func (h header) tableRefused(path string, length int64) error {
	need := (h.size + h.span() - 1) / h.span()
	bytes := uint64(h.l1Size) * 8
	switch {
	case uint64(h.l1Size) < need || bytes > maxL1:
		return damaged(path, QCOW2, "its first table has %d entries, and its disk of %d bytes needs %d", h.l1Size, h.size, need)
	case h.l1 == 0 || h.l1%(1<<h.clusterBits) != 0 || h.l1 > uint64(length) || bytes > uint64(length)-h.l1:
		return damaged(path, QCOW2, "its first table, %d bytes at byte %d, is not in the file of %d bytes", bytes, h.l1, length)
	}
	return nil
}

// span is how much of the disk an entry of the first table stands for.
func (h header) span() uint64 {
	entry := uint64(8)
	if h.incompatible&featureExtendedL2 != 0 {
		entry = 16
	}
	return (1 << h.clusterBits) * ((1 << h.clusterBits) / entry)
}

func (i *Image) openQCOW2(ctx context.Context, file *os.File, length int64) error {
	h, err := i.readHeader(file, length)
	if err != nil {
		return err
	}
	if h.snapshots > 0 {
		i.Notes = append(i.Notes, fmt.Sprintf("%d snapshots inside of %s are not taken along: the image is what it holds now", h.snapshots, i.path))
	}
	if h.compression != 0 || h.incompatible&featureExtendedL2 != 0 {
		return i.openWithQEMU(ctx, file) // the library does not know zstd, nor parts of clusters well
	}
	return i.openLibrary(file, h, length)
}

func (i *Image) readHeader(r io.ReaderAt, length int64) (header, error) {
	b := make([]byte, headerV3+8)
	n, err := r.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return header{}, i.failed(err)
	}
	if n < headerV2 || string(b[:4]) != qcow2.Magic {
		return header{}, damaged(i.path, QCOW2, "it does not begin like one")
	}
	h := parseHeader(b)
	return h, h.refused(i.path, length)
}

// openLibrary hands the file over without its name, so that nothing beside it can be found.
func (i *Image) openLibrary(r io.ReaderAt, h header, length int64) (err error) {
	defer recovered(&err)
	source, err := qcow2.Open(io.NewSectionReader(r, 0, length), nil)
	if err == nil {
		err = source.Readable()
	}
	if err != nil {
		return damaged(i.path, QCOW2, "%v", err)
	}
	table := make([]byte, h.l1Size*8)
	if _, err := r.ReadAt(table, int64(h.l1)); err != nil {
		return i.failed(err)
	}
	i.Size, i.reader = int64(h.size), &qcow2File{source, h, table}
	return nil
}

// qcow2File reads with the library.
type qcow2File struct {
	image *qcow2.Qcow2
	header
	table []byte
}

// extent passes over what the first table has nothing for, which the library would look at cluster by cluster.
func (q *qcow2File) extent(off int64) (data bool, end int64, err error) {
	defer recovered(&err)
	const offset = 0x00fffffffffffe00
	span := int64(q.span())
	for end = off; end < int64(q.size) && binary.BigEndian.Uint64(q.table[end/span*8:])&offset == 0; {
		end = min(int64(q.size), (end/span+1)*span)
	}
	if end > off {
		return false, end, nil
	}
	end = min(int64(q.size), (off/span+1)*span)
	found, err := q.image.Extent(off, end-off) // off lies at the beginning of a cluster, as the last end did
	if err == nil && found.Length <= 0 {
		err = errors.New("imagefile: an extent without a length")
	}
	return !found.Zero, off + found.Length, err
}

// ReadAt reads on where the library gave less than was asked for, as it does in compressed clusters.
func (q *qcow2File) ReadAt(p []byte, off int64) (n int, err error) {
	defer recovered(&err)
	for n < len(p) {
		step := min(int64(len(p)-n), 1<<q.clusterBits-(off+int64(n))%(1<<q.clusterBits))
		got, err := q.image.ReadAt(p[n:n+int(step)], off+int64(n))
		if n += got; got == 0 {
			return n, errors.Join(err, io.ErrUnexpectedEOF)
		}
	}
	return n, nil
}

// recovered makes an error of a panic in the library: an image may be anything.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("imagefile: the reader of qcow2 gave up: %v", p)
	}
}
