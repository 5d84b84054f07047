package volume

import (
	"context"
	"slices"

	"nbdcrypt/pkg/catalog"
)

// Verbs are the words of the table of verbs and statuses.
func Verbs() (words []string) {
	for v := toCreate; v <= verb(len(verbs)); v++ {
		words = append(words, verbs[v].word)
	}
	return words
}

// Begin claims a disk for what a word of the table says; done ends that.
func (s *Service) Begin(ctx context.Context, name, word string) (done func(), err error) {
	for v, row := range verbs {
		if row.word == word {
			d, err := s.claimNow(ctx, "default", name, v)
			return func() { s.release(d) }, err
		}
	}
	panic(word)
}

// Doing is the status that a disk has meanwhile; empty where it stays what it was.
func Doing(word string) Status {
	for _, row := range verbs {
		if row.word == word {
			return row.doing
		}
	}
	panic(word)
}

// Statuses are all that a disk can be.
func Statuses() []Status {
	all := append(append([]Status{Damaged}, whole...), half...)
	for _, row := range verbs {
		if row.doing != "" {
			all = append(all, row.doing)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Claims tells whether anything is kept waiting meanwhile.
func Claims(word string) bool {
	for _, row := range verbs {
		if row.word == word {
			return row.doing != "" || row.busy != ""
		}
	}
	panic(word)
}

// Cut leaves a disk as a crash does in the middle of work that its record tells of.
func (s *Service) Cut(ctx context.Context, name string, status Status) error {
	d, err := s.lookUp(ctx, "default", name)
	if err != nil {
		return err
	}
	d.Status = status
	return s.update(ctx, "cut "+string(status), func(t catalog.Txn) error { return put(t, diskKey(d.ID), d) })
}
