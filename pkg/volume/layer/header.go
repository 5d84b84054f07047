package layer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/google/uuid"
)

const (
	magic         = "NBDCMAP\n"
	version       = 1
	flagEncrypted = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrDamaged is wrapped by every error that tells of bytes which are not as they were written.
var ErrDamaged = errors.New("layer: damaged")

// ErrVersion is wrapped where a layer is of a format that this build does not read.
var ErrVersion = errors.New("layer: unknown format")

// Header is what a layer's map says of the layer; it never changes.
type Header struct {
	ID         uuid.UUID
	Encrypted  bool
	SectorSize int
}

// encode gives the header page of docs/disk-format.md.
func (h Header) encode() []byte {
	p := make([]byte, pageSize)
	copy(p, magic)
	binary.LittleEndian.PutUint32(p[8:], version)
	if h.Encrypted {
		binary.LittleEndian.PutUint32(p[12:], flagEncrypted)
	}
	copy(p[16:], h.ID[:])
	binary.LittleEndian.PutUint32(p[32:], uint32(h.SectorSize))
	binary.LittleEndian.PutUint32(p[36:], BlockSize)
	binary.LittleEndian.PutUint32(p[pageSize-4:], crc32.Checksum(p[:pageSize-4], castagnoli))
	return p
}

// decodeHeader reads a header page. The version is looked at before the sum, so that a later format is told from damage.
func decodeHeader(p []byte) (Header, error) {
	if len(p) != pageSize || string(p[:8]) != magic {
		return Header{}, fmt.Errorf("%w: the map does not begin as a map", ErrDamaged)
	}
	if v := binary.LittleEndian.Uint32(p[8:]); v != version {
		return Header{}, fmt.Errorf("%w: version %d; this build reads version %d", ErrVersion, v, version)
	}
	if crc32.Checksum(p[:pageSize-4], castagnoli) != binary.LittleEndian.Uint32(p[pageSize-4:]) {
		return Header{}, fmt.Errorf("%w: the sum of the map's header is wrong", ErrDamaged)
	}
	flags := binary.LittleEndian.Uint32(p[12:])
	if flags&^flagEncrypted != 0 {
		return Header{}, fmt.Errorf("%w: flags %#x; this build knows %#x", ErrVersion, flags, flagEncrypted)
	}
	h := Header{Encrypted: flags&flagEncrypted != 0, SectorSize: int(binary.LittleEndian.Uint32(p[32:]))}
	copy(h.ID[:], p[16:32])
	return h, h.check(p)
}

// check refuses what no version 1 writer makes.
func (h Header) check(p []byte) error {
	if h.SectorSize != 512 && h.SectorSize != 4096 {
		return fmt.Errorf("%w: sector size %d", ErrVersion, h.SectorSize)
	}
	if b := binary.LittleEndian.Uint32(p[36:]); b != BlockSize {
		return fmt.Errorf("%w: block size %d", ErrVersion, b)
	}
	for _, b := range p[40 : pageSize-4] {
		if b != 0 {
			return fmt.Errorf("%w: a field that this build does not know is set", ErrVersion)
		}
	}
	return nil
}
