package cryptdev

import "nbdcrypt/pkg/volume/layer"

// span is a range [off, end) with the whole units [lo, hi) that it touches.
type span struct{ off, end, lo, hi, unit int64 }

func spanOf(off, end, unit int64) span {
	return span{off, end, off / unit * unit, (end + unit - 1) / unit * unit, unit}
}

func (s span) aligned() bool { return s.off == s.lo && s.end == s.hi }

// cut is where a piece that begins at off ends at the latest: its whole units, off's own included, fill at most size
// bytes.
func cut(off, size int64) int64 { return off/layer.BlockSize*layer.BlockSize + size }
