//go:build integration

package integration

import (
	"hash/maphash"
	"os"
	"strings"
	"sync"
	"testing"
)

// scheduleSize is how long the longest schedule is that aeskeyfind knows, that of AES-256: so much of what follows is looked at with a page.
const scheduleSize = 240

// haystack remembers pages in which aeskeyfind had its chance: most of a process's memory is its program, which every snapshot has again.
type haystack struct {
	mu    sync.Mutex
	seed  maphash.Seed
	pages map[uint64]bool
}

func newHaystack() *haystack { return &haystack{seed: maphash.MakeSeed(), pages: map[uint64]bool{}} }

// inDaemons is for all snapshots of daemons.
var inDaemons = newHaystack()

// first tells whether a page with what follows it is met for the first time.
func (s *haystack) first(page []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := maphash.Bytes(s.seed, page)
	met := s.pages[sum]
	s.pages[sum] = true
	return !met
}

// unmet is what of a snapshot was not searched before, whole schedules that begin there included.
func (s *haystack) unmet(shot *snapshot) (rest []byte) {
	done := 0 // in the blob
	for i, p := range shot.parts {
		end := len(shot.blob)
		if i+1 < len(shot.parts) {
			end = shot.parts[i+1].at
		}
		for at := p.at; at < end; at += pageSize {
			to := min(at+pageSize, end)
			if with := min(to+scheduleSize, len(shot.blob)); s.first(shot.blob[at:with]) {
				rest = append(rest, shot.blob[max(at, done):with]...)
				done = with
			}
		}
	}
	return rest
}

// aeskeyfind returns the keys that the tool prints of what it has not searched before.
func (s *haystack) aeskeyfind(t *testing.T, shot *snapshot) string {
	t.Helper()
	rest := s.unmet(shot)
	if len(rest) == 0 {
		return ""
	}
	path := t.TempDir() + "/memory"
	writeFile(t, path, rest)
	defer os.Remove(path)
	return strings.TrimSpace(tool(t, "aeskeyfind", "-q", path))
}
