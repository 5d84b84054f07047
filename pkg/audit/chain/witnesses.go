package chain

import (
	"math"

	"nbdcrypt/pkg/refusal"
)

// Witnesses are heads that a log had once, by who says so: it must have them all.
type Witnesses struct {
	seen map[uint64][]witnessed
	last uint64
}

// witnessed is a hash, and who knows it.
type witnessed struct{ hash, by string }

// NewWitnesses makes the witnesses of a log that nobody has seen yet.
func NewWitnesses() *Witnesses { return &Witnesses{seen: map[uint64][]witnessed{}} }

// Add adds a head that somebody knows.
func (w *Witnesses) Add(head Head, by string) {
	w.seen[head.Seq] = append(w.seen[head.Seq], witnessed{head.Hash, by})
	w.last = max(w.last, head.Seq)
}

// First is the first record that somebody knows; the end of all numbers where nobody knows one.
func (w *Witnesses) First() uint64 {
	first := uint64(math.MaxUint64)
	for seq := range w.seen {
		first = min(first, seq)
	}
	return first
}

// Visit holds a record against who has seen it.
func (w *Witnesses) Visit(link Link) error {
	for _, seen := range w.seen[link.Seq] {
		if seen.hash != string(link.Hash) {
			return rewritten(link.Seq, seen.by)
		}
	}
	return nil
}

// End is for the head that the log ended at.
func (w *Witnesses) End(head Head) error {
	if w.last <= head.Seq {
		return nil
	}
	return refusal.New(refusal.Damaged, Advice,
		"the audit log was cut: it ends at line %d, and %s knows record %d", head.Seq, w.seen[w.last][0].by, w.last)
}

func rewritten(seq uint64, by string) error {
	return refusal.New(refusal.Damaged, Advice,
		"the audit log was written anew: line %d has another hash than %s knows", seq, by)
}
