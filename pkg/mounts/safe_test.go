package mounts

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nbdcrypt/pkg/refusal"
)

// TestSafe: a directory in which others could move what is on the way is refused, wherever it is on the way; a sticky one keeps what is not theirs.
func TestSafe(t *testing.T) {
	top, me := t.TempDir(), os.Geteuid()
	if err := Safe(top, me); err != nil {
		t.Skip("temporary files lie where others can move them:", err) // nothing can be told apart there
	}
	for _, c := range []struct {
		dirs  string
		modes []fs.FileMode
		at    string // what refuses it
	}{
		{"a/b", []fs.FileMode{0o755, 0o755}, ""},
		{"c/d", []fs.FileMode{0o755, 0o777}, ""}, // it is covered then
		{"e/f", []fs.FileMode{0o775, 0o755}, "e"},
		{"g/h", []fs.FileMode{0o757, 0o755}, "g"},
		{"i/j", []fs.FileMode{0o777 | fs.ModeSticky, 0o755}, ""},
		{"k/l/m", []fs.FileMode{0o777, 0o755, 0o755}, "k"},
		{"n/o/p", []fs.FileMode{0o777 | fs.ModeSticky, 0o777, 0o755}, "o"},
	} {
		path := top
		for i, name := range strings.Split(c.dirs, "/") {
			path = filepath.Join(path, name)
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.modes[i]); err != nil { // past the umask
				t.Fatal(err)
			}
		}
		err := Safe(path, me)
		if c.at == "" && err != nil || c.at != "" && (refusal.CodeOf(err) != refusal.Denied || !strings.Contains(err.Error(), "/"+c.at+" (")) {
			t.Errorf("%s: %v", c.dirs, err)
		}
	}
}

// TestSafeOwners: who owns a directory may change it, whatever its mode, and what is his in a sticky one, too.
func TestSafeOwners(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives directories away")
	}
	top := t.TempDir()
	for _, c := range []struct {
		above, below int
		mode         fs.FileMode
		safe         bool
	}{
		{0, 0, 0o755, true}, {5, 0, 0o755, false}, {5, 5, 0o700, false}, {0, 5, 0o755, true},
		{0, 5, 0o777 | fs.ModeSticky, false}, {5, 0, 0o777 | fs.ModeSticky, false}, {7, 7, 0o755, true}, {0, 7, 0o777 | fs.ModeSticky, true},
	} {
		above, err := os.MkdirTemp(top, "")
		if err != nil {
			t.Fatal(err)
		}
		path := above + "/d"
		for _, err := range []error{os.Mkdir(path, 0o755), os.Chown(path, c.below, 0), os.Chown(above, c.above, 0), os.Chmod(above, c.mode)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := Safe(path, 7); (err == nil) != c.safe {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
