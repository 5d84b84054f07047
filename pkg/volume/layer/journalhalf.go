package layer

import "syscall"

// half is one of the two halves: one is written while the other waits for the flush that makes it superfluous.
type half struct {
	from   int64 // where in the file
	mapped [][]byte
	used   int64
	rest   []byte // what is left of the last piece
}

// The first piece of a half stays as long as the journal, the others go with what they hold.
const (
	firstPiece = 16 << 10
	laterPiece = 256 << 10
	// fullHalf is how much a half holds when a flush should come.
	fullHalf = halfSize / 2
)

func (h *half) size() (n int64) {
	for _, p := range h.mapped {
		n += int64(len(p))
	}
	return n
}

// unmap lets go of the pieces from one on.
func (h *half) unmap(from int) {
	for i := from; i < len(h.mapped); i++ {
		_ = syscall.Munmap(h.mapped[i]) // it was mapped like this
	}
	h.mapped, h.rest = h.mapped[:min(from, len(h.mapped))], nil
}
