//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// A catalog file that was truncated, flipped or lost is refused at the start and left as it is, or it does not matter; with the
// right one back all is there.
func TestDamagedCatalog(t *testing.T) {
	t.Parallel()
	d := wellKept(t)
	saved := tempDir(t)
	tool(t, "cp", "-a", d.state, saved)
	refused := 0
	for _, path := range files(t, d.state+"/catalog") {
		for how, harm := range catalogHarms(len(readFile(t, path))) {
			if d.refusesCatalog(t, fmt.Sprintf("%s of %s", how, filepath.Base(path)), path, harm) {
				refused++
			}
			check(t, os.RemoveAll(d.state))
			tool(t, "cp", "-a", saved+"/state", d.state)
		}
	}
	if refused < 8 {
		t.Errorf("only %d kinds of damage were refused", refused)
	}
	d.start()
	d.isWhole()
}

// catalogHarms are ways to damage a file of that size; nil is its loss.
func catalogHarms(size int) map[string]func([]byte) []byte {
	harms := map[string]func([]byte) []byte{"loss": nil}
	if size == 0 {
		return harms
	}
	for what, keep := range map[string]int{"nothing left": 0, "half": size / 2, "last byte cut": size - 1} {
		harms[what] = func(b []byte) []byte { return b[:keep] }
	}
	for i := range 6 {
		at := i * size / 6
		harms[fmt.Sprint("flip at ", at)] = flip(at)
	}
	return harms
}

// refusesCatalog damages one file and starts: either the start is refused and has changed nothing, or everything is there.
func (d *daemon) refusesCatalog(t *testing.T, what, path string, harm func([]byte) []byte) bool {
	t.Helper()
	if harm == nil {
		check(t, os.Remove(path))
	} else {
		writeFile(t, path, harm(bytes.Clone(readFile(t, path))))
	}
	before := tree(t, d.dir)
	if d.tryStart() != "" {
		d.isWhole()
		d.stop()
		return false
	}
	if code := d.wait(); code != 8 {
		t.Errorf("%s: serve ended with %d, not 8", what, code)
	}
	if files := changed(before, tree(t, d.dir)); len(files) != 0 {
		t.Errorf("%s: %q changed", what, files)
	}
	return true
}
