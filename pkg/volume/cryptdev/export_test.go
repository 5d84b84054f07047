package cryptdev

// Buffers lets a test see every buffer that the device makes from now on.
func (d *Device) Buffers() (all *[][]byte) {
	all = new([][]byte)
	d.buffers = newBuffers(func(size int) *[]byte {
		b := make([]byte, size)
		*all = append(*all, b)
		return &b
	})
	return all
}
