package backup

import (
	"bytes"
	"encoding/binary"
	"regexp"
	"time"

	"github.com/google/uuid"
)

const (
	headerMagic     = "NBDCBAK\n"
	flagEncrypted   = 1
	flagIncremental = 2
	headerHashAt    = HeaderSize - hashSize
)

// Header is what a backup says of itself at its beginning.
type Header struct {
	ID, Store, Disk uuid.UUID
	// Parent and ParentManifest name the backup that this one adds to; they are zero in a full one.
	Parent         uuid.UUID
	ParentManifest Hash
	Encrypted      bool
	Size           int64
	Taken          time.Time
	SectorSize     int
	Depth          int
	Pages          int64
	Data           int64
	DiskName       string
	Name           string
	Project        string
}

// Incremental tells whether the backup needs its parent.
func (h Header) Incremental() bool { return h.Parent != uuid.Nil }

// Body is how long the file is up to its trailer.
func (h Header) Body() int64 { return HeaderSize + PageSize*h.Pages + h.Data }

// Length is how long the whole file is.
func (h Header) Length() int64 { return h.Body() + trailerSize }

// Encode gives the header's bytes.
func (h Header) Encode() []byte {
	p, le := make([]byte, HeaderSize), binary.LittleEndian
	copy(p, headerMagic)
	le.PutUint32(p[8:], Version)
	le.PutUint32(p[12:], h.flags())
	copy(p[16:], h.ID[:])
	copy(p[32:], h.Store[:])
	copy(p[48:], h.Disk[:])
	copy(p[64:], h.Parent[:])
	copy(p[80:], h.ParentManifest[:])
	le.PutUint64(p[112:], uint64(h.Size))
	le.PutUint64(p[120:], uint64(h.Taken.Unix()))
	le.PutUint32(p[128:], uint32(h.SectorSize))
	le.PutUint32(p[132:], uint32(h.Depth))
	le.PutUint64(p[136:], uint64(h.Pages))
	le.PutUint64(p[144:], uint64(h.Data))
	le.PutUint64(p[152:], uint64(h.Body()))
	copy(p[160:160+nameSize], h.DiskName)
	copy(p[288:288+nameSize], h.Name)
	copy(p[416:416+projectSize], h.Project)
	sum := hashOf(p[:headerHashAt])
	copy(p[headerHashAt:], sum[:])
	return p
}

func (h Header) flags() (f uint32) {
	if h.Encrypted {
		f |= flagEncrypted
	}
	if h.Incremental() {
		f |= flagIncremental
	}
	return f
}

// DecodeHeader reads a header. The version is looked at before the hash, so that a later format is told from damage.
func DecodeHeader(p []byte) (h Header, err error) {
	le := binary.LittleEndian
	if len(p) != HeaderSize || string(p[:8]) != headerMagic {
		return h, damaged("the file does not begin as a backup")
	}
	if v := le.Uint32(p[8:]); v != Version {
		return h, unknown("the backup has version %d; this build reads version %d", v, Version)
	}
	if sum := hashOf(p[:headerHashAt]); !bytes.Equal(sum[:], p[headerHashAt:]) {
		return h, damaged("the header, bytes 0 to %d, is not as it was written", HeaderSize-1)
	}
	flags := le.Uint32(p[12:])
	if flags&^(flagEncrypted|flagIncremental) != 0 {
		return h, unknown("the backup has flags %#x; this build knows %#x", flags, flagEncrypted|flagIncremental)
	}
	h = Header{Encrypted: flags&flagEncrypted != 0, Size: int64(le.Uint64(p[112:])), Taken: time.Unix(int64(le.Uint64(p[120:])), 0).UTC(),
		SectorSize: int(le.Uint32(p[128:])), Depth: int(le.Uint32(p[132:])), Pages: int64(le.Uint64(p[136:])), Data: int64(le.Uint64(p[144:])),
		DiskName: text(p[160 : 160+nameSize]), Name: text(p[288 : 288+nameSize]), Project: text(p[416 : 416+projectSize])}
	copy(h.ID[:], p[16:])
	copy(h.Store[:], p[32:])
	copy(h.Disk[:], p[48:])
	copy(h.Parent[:], p[64:])
	copy(h.ParentManifest[:], p[80:])
	return h, h.check(p, flags)
}

// text is what stands before the zeros.
func text(p []byte) string { return string(bytes.TrimRight(p, "\x00")) }

// maxPages is more than the most fragmented disk of the largest size fills: no sum with it overflows.
const maxPages = MaxSize / BlockSize

// lastSecond is the last that a date in text can name, at the end of the year 9999.
const lastSecond = 253402300799

var nameRule = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// check refuses numbers that don't agree with each other, before anything is done with one of them.
func (h Header) check(p []byte, flags uint32) error {
	switch {
	case h.SectorSize != 512 && h.SectorSize != 4096:
		return unknown("the header gives sectors of %d bytes", h.SectorSize)
	case h.Size <= 0 || h.Size > MaxSize || h.Size%int64(h.SectorSize) != 0:
		return damaged("the header gives the disk %d bytes", h.Size)
	case h.flags() != flags, h.Incremental() != (h.Depth > 0), h.Incremental() == (h.ParentManifest == Hash{}), h.Depth < 0 || h.Depth > MaxDepth:
		return damaged("the header gives the parent %s, the flags %#x and the depth %d, which do not agree", h.Parent, flags, h.Depth)
	case h.Pages < 0 || h.Pages > maxPages, h.Data < 0 || h.Data%BlockSize != 0 || h.Data > blocks(h.Size)*BlockSize,
		int64(binary.LittleEndian.Uint64(p[152:])) != h.Body():
		return damaged("the header gives %d pages and %d bytes of data, which do not agree", h.Pages, h.Data)
	case h.ID == uuid.Nil || h.Store == uuid.Nil || h.Disk == uuid.Nil || h.ID == h.Parent:
		return damaged("the header lacks an id")
	case h.Taken.Unix() < 0 || h.Taken.Unix() > lastSecond:
		return damaged("the header gives a time that no clock shows")
	case !nameRule.MatchString(h.DiskName), !nameRule.MatchString(h.Name), !nameRule.MatchString(h.Project):
		return damaged("the header gives names that nothing can have")
	case !allZero(p[480:headerHashAt]):
		return unknown("a field of the header that this build does not know is set")
	}
	return nil
}

// seed is what page 0 has for the page before it: pages of one backup do not pass for those of another.
func (h Header) seed() Hash { return hashOf(h.ID[:]) }

// manifestOf is the hash of all that a backup says: its header, and its last page with all before it.
func manifestOf(head []byte, last Hash) Hash {
	return hashOf(append(append([]byte{}, head...), last[:]...))
}
