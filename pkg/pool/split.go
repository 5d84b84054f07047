package pool

import "iter"

// SegmentSize is the most that one file of a volume holds.
const SegmentSize = 1 << 40

// part is the piece of a range that lies in one segment.
type part struct {
	segment int
	off, n  int64 // in the segment
}

// split cuts the range [off, off+n) of a volume at segment borders.
func split(off, n int64) iter.Seq[part] {
	return func(yield func(part) bool) {
		for end := off + n; off < end; {
			at := off % SegmentSize
			length := min(end-off, SegmentSize-at)
			if !yield(part{int(off / SegmentSize), at, length}) {
				return
			}
			off += length
		}
	}
}

// segments is the number of files that a volume of size bytes has: at least one.
func segments(size int64) int {
	return max(1, int((size+SegmentSize-1)/SegmentSize))
}

// segmentLen is the length of file i of a volume of size bytes.
func segmentLen(size int64, i int) int64 {
	return min(SegmentSize, size-int64(i)*SegmentSize)
}
