package cryptdev

// Buffers lets a test see every buffer that the device makes from now on.
func (d *Device) Buffers() (all *[][]byte) {
	all = new([][]byte)
	d.buffers.New = func() any {
		b := make([]byte, pieceSize)
		*all = append(*all, b)
		return &b
	}
	return all
}
