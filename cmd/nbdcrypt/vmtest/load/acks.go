package load

import (
	"fmt"
	"maps"
)

// Acks are what was acknowledged as durable.
type Acks struct {
	// Flushed is the last change of each worker that a flush came after.
	Flushed map[int]uint64 `json:"flushed"`
	// Alone are later changes that were durable by themselves.
	Alone map[int][]uint64 `json:"alone"`
}

// Line is how a load says that a worker's changes up to this one, or this one alone, are durable.
func Line(worker int, number uint64, alone bool) string {
	word := "flushed"
	if alone {
		word = "alone"
	}
	return fmt.Sprintf("%s %d %d\n", word, worker, number)
}

// Take learns from a line; others are passed over.
func (a *Acks) Take(line string) bool {
	var word string
	var worker int
	var number uint64
	if n, _ := fmt.Sscanf(line, "%s %d %d", &word, &worker, &number); n != 3 {
		return false
	}
	switch word {
	case "flushed":
		if a.Flushed == nil {
			a.Flushed = map[int]uint64{}
		}
		a.Flushed[worker] = max(a.Flushed[worker], number)
		delete(a.Alone, worker)
	case "alone":
		if a.Alone == nil {
			a.Alone = map[int][]uint64{}
		}
		a.Alone[worker] = append(a.Alone[worker], number)
	default:
		return false
	}
	return true
}

// Clone is the state of things now.
func (a Acks) Clone() Acks {
	alone := map[int][]uint64{}
	for worker, numbers := range a.Alone {
		alone[worker] = append([]uint64(nil), numbers...)
	}
	return Acks{maps.Clone(a.Flushed), alone}
}

// floor is, for each sector of a worker's part, the last change that must be there; 0 for none.
func (p Plan) floor(worker int, a Acks) []uint64 {
	floor := make([]uint64, p.Sectors)
	note := func(number uint64) {
		c := p.change(worker, number)
		for s := c.first; s < c.first+c.n; s++ {
			floor[s] = max(floor[s], number)
		}
	}
	for number := uint64(1); number <= a.Flushed[worker]; number++ {
		note(number)
	}
	for _, number := range a.Alone[worker] {
		note(number)
	}
	return floor
}
