package layer

// The numbers of docs/disk-format.md.
const (
	// BlockSize is the unit of the map.
	BlockSize = 4096
	// MaxSize is the largest disk, 1 PiB.
	MaxSize = 1 << 50

	pageSize       = 4096
	partSize       = 512
	partsPerPage   = pageSize / partSize
	partStates     = 1984 // states in a part
	recordStates   = partsPerPage * partStates
	recordStateLen = recordStates / 4 // two bits each
	partStateLen   = partStates / 4
	recordsAt      = 2 * pageSize // behind the two headers
	recordPairSize = 2 * pageSize
	bytesPerRecord = recordStates * BlockSize
)

// State is what the map says of a block.
type State uint8

// The four states. The numbers are those on disk.
const (
	Absent   State = 0 // the layer below shows through
	Data     State = 1
	Zero     State = 2 // reads as zeros; its space may have been given back
	Reserved State = 3 // reads as zeros; its space is allocated
)

// roundUp is n rounded up to whole units.
func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }

// DataSize is the size of the data volume of a disk of size bytes.
func DataSize(size int64) int64 { return roundUp(size, BlockSize) }

// records is the number of map records of a disk of size bytes.
func records(size int64) int64 { return (size + bytesPerRecord - 1) / bytesPerRecord }

// MapSize is the size of the map volume of a disk of size bytes.
func MapSize(size int64) int64 { return recordsAt + records(size)*recordPairSize }

// StepEnd is where work on a long range that begins at off pauses, and lets others have their turn: at the end of a record,
// since a record that has one state throughout is changed at once.
func StepEnd(off int64) int64 { return (off/bytesPerRecord + 1) * bytesPerRecord }

// pageAt is where the page of a generation of a record stands in the map.
func pageAt(record int64, generation uint64) int64 {
	at := recordsAt + record*recordPairSize
	if generation%2 == 0 {
		at += pageSize
	}
	return at
}
