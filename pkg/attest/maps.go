package attest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"nbdcrypt/pkg/secret"
)

// A region is a mapping of this process.
type region struct {
	from, to uintptr
	readable bool
	name     string // the kernel's, empty for anonymous memory
}

// kernels are mappings in which the kernel keeps its own: the clock. Nobody else writes there.
var kernels = map[string]bool{"[vvar]": true, "[vvar_vclock]": true, "[vsyscall]": true}

// regions lists the readable mappings of this process, by address; heap is one that lies on the Go heap.
func regions(heap uintptr) ([]region, error) {
	text, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return nil, fmt.Errorf("attest: the list of this process's memory can't be read: %w", err)
	}
	all, err := parseMaps(text)
	if err != nil {
		return nil, err
	}
	name(all, heap)
	var list []region
	for _, r := range all {
		if r.readable && !kernels[r.name] {
			list = append(list, r)
		}
	}
	return list, nil
}

// parseMaps reads proc_pid_maps(5).
func parseMaps(text []byte) (list []region, err error) {
	last := uintptr(0)
	for line := range bytes.Lines(text) {
		r, err := parseMapping(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil || r.from < last || r.to <= r.from {
			return nil, fmt.Errorf("attest: the list of this process's memory has the line %q", line)
		}
		last = r.to
		list = append(list, r)
	}
	return list, nil
}

var errLine = errors.New("no mapping")

// parseMapping reads "from-to perms offset device inode name", where the name may hold spaces or be missing.
func parseMapping(line []byte) (r region, err error) {
	var rest [6][]byte
	rest[5] = line
	for i := range 5 {
		var found bool
		rest[i], rest[5], found = bytes.Cut(rest[5], []byte(" "))
		if !found && i < 4 {
			return r, errLine
		}
	}
	from, to, _ := bytes.Cut(rest[0], []byte("-"))
	a, err1 := strconv.ParseUint(string(from), 16, 64)
	b, err2 := strconv.ParseUint(string(to), 16, 64)
	if err1 != nil || err2 != nil || len(rest[1]) != 4 {
		return r, errLine
	}
	return region{uintptr(a), uintptr(b), rest[1][0] == 'r', string(bytes.TrimLeft(rest[5], " "))}, nil
}

// The names of what the kernel has no name for.
const (
	goHeap    = "the Go heap"
	nameless  = "anonymous memory"
	variables = ": its variables" // after the program's path
)

// name gives names to anonymous memory: what follows the program, which the list begins with, is its variables, and what hangs
// together with a place on the heap is the heap.
func name(list []region, heap uintptr) {
	for i := range list {
		if list[i].name == "" {
			list[i].name = nameless
			if i > 0 && list[0].name != nameless && list[i-1].to == list[i].from && strings.TrimSuffix(list[i-1].name, variables) == list[0].name {
				list[i].name = list[0].name + variables
			}
		}
	}
	from := slices.IndexFunc(list, func(r region) bool { return r.name == nameless && r.from <= heap && heap < r.to })
	if from < 0 {
		return
	}
	to := from + 1
	for from > 0 && list[from-1].name == nameless && list[from-1].to == list[from].from {
		from--
	}
	for to < len(list) && list[to].name == nameless && list[to-1].to == list[to].from {
		to++
	}
	for i := range list[from:to] {
		list[from+i].name = goHeap
	}
}

// without takes spans out of regions.
func without(list []region, spans []secret.Span) (rest []region) {
	slices.SortFunc(spans, func(a, b secret.Span) int { return cmp.Compare(a.From, b.From) })
	for _, r := range list {
		for _, s := range spans {
			if s.To <= r.from || r.to <= s.From {
				continue
			}
			if r.from < s.From {
				rest = append(rest, region{r.from, s.From, r.readable, r.name})
			}
			r.from = min(s.To, r.to)
		}
		if r.from < r.to {
			rest = append(rest, r)
		}
	}
	return rest
}

func nameOf(list []region, address uintptr) string {
	for _, r := range list {
		if r.from <= address && address < r.to {
			return r.name
		}
	}
	return nameless
}
