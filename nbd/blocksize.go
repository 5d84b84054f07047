package nbd

const (
	defaultMinimumBlock   = 512
	defaultPreferredBlock = 4096
	// maximumBlock is what is advertised; up to twice as much is served (spec item 12).
	maximumBlock = 32 << 20
)

// blockSizes are what the client is told. The protocol wants powers of two and a size that is a multiple of the
// minimum; a device that says otherwise is overruled, since smaller requests are served anyway.
func (e *Export) blockSizes(size int64) (minimum, preferred uint32) {
	minimum, preferred = defaultMinimumBlock, defaultPreferredBlock
	if e.device.sizer != nil {
		minimum, preferred = e.device.sizer.BlockSizes()
	}
	if !isBlockSize(minimum) {
		minimum = defaultMinimumBlock
	}
	if !isBlockSize(preferred) {
		preferred = defaultPreferredBlock
	}
	for size%int64(minimum) != 0 {
		minimum /= 2
	}
	return minimum, max(minimum, preferred)
}

// isBlockSize tells a power of two that the protocol allows as a minimum.
func isBlockSize(n uint32) bool { return n > 0 && n <= 64<<10 && n&(n-1) == 0 }
