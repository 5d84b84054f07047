package secret

const (
	cellSize   = 64 // a cache line, so that kernels may load round keys aligned
	chunkSize  = 64 << 10
	chunkCells = chunkSize / cellSize
)

// A chunk is one mapping and which of its cells are taken.
type chunk struct {
	mem    []byte
	taken  [chunkCells]bool
	toWork bool // for what lasts as long as one computation
}

func cellsFor(n int) int { return (n + cellSize - 1) / cellSize }

// find returns the first cell of the first free run of n cells.
func (c *chunk) find(n int) (int, bool) {
	run := 0
	for i, taken := range c.taken {
		if taken {
			run = 0
			continue
		}
		if run++; run == n {
			return i - n + 1, true
		}
	}
	return 0, false
}

func (c *chunk) mark(first, n int, taken bool) {
	for i := first; i < first+n; i++ {
		c.taken[i] = taken
	}
}

// unwiped counts bytes that are not zero in free cells.
func (c *chunk) unwiped() (n int) {
	for i, taken := range c.taken {
		if taken {
			continue
		}
		for _, b := range c.mem[i*cellSize : (i+1)*cellSize] {
			if b != 0 {
				n++
			}
		}
	}
	return n
}
