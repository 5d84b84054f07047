package blockdev

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// passingTime is how long a process may have a device open that only looks at it, as udev's do after each change.
	passingTime = 2 * time.Second
	passingStep = 50 * time.Millisecond
)

// openers are the processes that have one of them open, as far as their names lead there: they would get errors, and the kernel keeps the
// device until they end. Those that only look have gone a moment later.
func (h host) openers(parts []part) (list []string, err error) {
	for end := time.Now().Add(passingTime); ; time.Sleep(passingStep) {
		if list, err = h.openNow(parts); len(list) == 0 || err != nil || time.Now().After(end) {
			return list, err
		}
	}
}

func (h host) openNow(parts []part) (list []string, err error) {
	files, err := filepath.Glob(filepath.Join(h.root, "proc/[0-9]*/fd/*"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		to, err := os.Readlink(file)
		if err != nil || !slices.ContainsFunc(parts, func(p part) bool { return p.path() == to }) {
			continue // another file, or it was closed meanwhile
		}
		process := filepath.Dir(filepath.Dir(file))
		name, _ := h.line(filepath.Join(process, "comm"))
		words := fmt.Sprintf("process %s (%s) has %s open", filepath.Base(process), strings.ToValidUTF8(name, "?"), to)
		if !slices.Contains(list, words) {
			list = append(list, words)
		}
	}
	return list, nil
}
