package cryptdev

import "sync"

// Buffers lets a test see every buffer that the device makes from now on.
func (d *Device) Buffers() (all *[][]byte) {
	all = new([][]byte)
	d.buffers = &sync.Pool{New: func() any {
		b := make([]byte, pieceSize)
		*all = append(*all, b)
		return &b
	}}
	return all
}
