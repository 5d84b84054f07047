// Package attest searches the memory of its own process for keys that were wiped. It knows them by keyed fingerprints, which are
// taken right before: no copy of a key is kept for it.
//
// What is looked for are the round keys of a layer's schedules, 16 bytes each, at every address of every readable mapping; the
// halves of the key are the first round keys, and any layout of schedules is made of round keys. They are looked for as they
// are, with the bytes of each word reversed, as portable AES keeps them, and the key itself in hex.
//
// What it does not show: pieces shorter than 16 bytes, registers, the kernel's memory, swap space beside what it reads back in, and
// what moves from where it still has to look to where it has looked already.
package attest

import (
	"context"
	"errors"
	"fmt"
	"runtime/metrics"
	"time"

	"nbdcrypt/pkg/secret"
)

// Report says what a search has read and found.
type Report struct {
	Bytes      int64 // that were searched
	Regions    int
	Unreadable int64 // bytes of those regions that could not be read: pages past the end of a file, and what was unmapped meanwhile
	Seconds    float64
	Found      int   // all places
	Hits       []Hit // the first ones
	byLayer    map[string]int
	kept       map[spot]int
}

// spot is what hits have in common of which no more than a few are told.
type spot struct{ layer, region string }

// Hit is a trace of a key.
type Hit struct {
	What    string
	Layer   string // empty where nobody can tell whose it is
	Region  string
	Address uintptr
}

// maxHits is how many places are told of each layer in each region.
const maxHits = 16

// keyMemory is the region of what is found in memory that no key holds.
const keyMemory = "key memory, free"

// errBlind says that a search that found nothing has shown nothing.
var errBlind = errors.New("attest: the search is blind")

// Search looks for what was marked in all memory that this process can read, but for key memory: there it makes sure that what
// no key holds is zero. progress is called often, and may wait. An error means that nothing was shown, whatever the report says.
func Search(ctx context.Context, marks []*Marks, progress func(done, total int64)) (Report, error) {
	begun, heap := time.Now(), heapInUse()
	s, err := newSearch(marks)
	if err != nil {
		return Report{}, err
	}
	defer s.close()
	if err := s.everywhere(ctx, progress); err != nil {
		return s.report, err
	}
	if err := s.verdict(heap); err != nil {
		return s.report, err
	}
	if n := secret.Unwiped(); n > 0 {
		s.report.note(Hit{What: fmt.Sprintf("bytes that are not zero: %d", n), Region: keyMemory})
	}
	s.report.Seconds = time.Since(begun).Seconds()
	return s.report, nil
}

// verdict tells whether the search has shown anything, where the heap had so many bytes in use.
func (s *search) verdict(heap int64) error {
	switch {
	case !s.seen:
		return fmt.Errorf("%w: what was put on the heap for it to find was not found", errBlind)
	case s.report.Bytes < heap:
		return fmt.Errorf("%w: it read %d bytes, and the heap in use alone was %d", errBlind, s.report.Bytes, heap)
	}
	return nil
}

// note keeps a hit, or counts it where there are enough.
func (r *Report) note(h Hit) {
	r.Found++
	if r.byLayer == nil {
		r.byLayer, r.kept = map[string]int{}, map[spot]int{}
	}
	r.byLayer[h.Layer]++
	at := spot{h.Layer, h.Region}
	if r.kept[at]++; r.kept[at] <= maxHits {
		r.Hits = append(r.Hits, h)
	}
}

// about is the report on some layers alone. What can't be told apart is about all.
func (r Report) about(marks []*Marks) Report {
	mine := map[string]bool{"": true}
	for _, m := range marks {
		mine[m.layer] = true
	}
	of := r
	of.Found, of.Hits = 0, nil
	for layer, n := range r.byLayer {
		if mine[layer] {
			of.Found += n
		}
	}
	for _, h := range r.Hits {
		if mine[h.Layer] {
			of.Hits = append(of.Hits, h)
		}
	}
	return of
}

// heapInUse is how much of the Go heap objects take: a search must have read that at least.
func heapInUse() int64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}
