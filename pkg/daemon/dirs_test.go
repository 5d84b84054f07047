package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"nbdcrypt/pkg/refusal"
)

// A run directory that holds other things is left as it is; our own is opened to clients.
func TestRunDirectoryOfSomethingElse(t *testing.T) {
	for name, c := range map[string]struct {
		file  string
		mode  os.FileMode
		taken bool
	}{
		"new":                {"", 0, true},
		"empty":              {"", 0o700, true},
		"empty, open to all": {"", 0o777, true},
		"ours":               {runLock, 0o700, true},
		"open as needed":     {"other", 0o755, true},
		"a home":             {"other", 0o700, false},
		"a /tmp":             {"other", 0o777 | os.ModeSticky, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "run")
			want := os.FileMode(0o755)
			if c.mode != 0 {
				place(t, dir, c.file, c.mode)
			}
			if !c.taken {
				want = c.mode
			}
			err := publicDir(dir)
			if (err == nil) != c.taken || err != nil && refusal.From(err).Hint == "" {
				t.Errorf("%v", err)
			}
			info, err := os.Stat(dir)
			if err != nil || info.Mode()&(os.ModePerm|os.ModeSticky) != want {
				t.Errorf("mode %v, want %v (%v)", info.Mode(), want, err)
			}
			// A symbolic link leads to the same answer.
			link := filepath.Join(t.TempDir(), "link")
			if err := os.Symlink(dir, link); err != nil {
				t.Fatal(err)
			}
			if err := publicDir(link); (err == nil) != c.taken {
				t.Errorf("through a link: %v", err)
			}
		})
	}
}

func place(t *testing.T, dir, file string, mode os.FileMode) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if file != "" {
		if err := os.WriteFile(filepath.Join(dir, file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, mode); err != nil {
		t.Fatal(err)
	}
}

// A directory of another user is refused, for state and sockets alike: its owner could change what lies in it.
// The daemon's umask closes what it makes; the way to the sockets has to stay open, and what was there as it is.
func TestRunDirectoryBelowMissingOnes(t *testing.T) {
	top := t.TempDir()
	if err := os.Chmod(top, 0o711); err != nil {
		t.Fatal(err)
	}
	defer syscall.Umask(syscall.Umask(0o077))
	if err := publicDir(filepath.Join(top, "a", "b", "run")); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]os.FileMode{"": 0o711, "a": 0o755, "a/b": 0o755, "a/b/run": 0o755} {
		info, err := os.Stat(filepath.Join(top, dir))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v", dir, info, err)
		}
	}
}

func TestDirectoryOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	dir := filepath.Join(t.TempDir(), "theirs")
	place(t, dir, "", 0o700)
	if err := os.Chown(dir, 65534, -1); err != nil {
		t.Fatal(err)
	}
	for name, make := range map[string]func(string) error{"state": privateDir, "run": publicDir} {
		if err := make(dir); refusal.CodeOf(err) != refusal.Failed {
			t.Errorf("%s: %v", name, err)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, make := range map[string]func(string) error{"state": privateDir, "run": publicDir} {
		if err := make(file); refusal.From(err) == nil || refusal.From(err).Hint == "" {
			t.Errorf("%s: a file: %v", name, err)
		}
	}
}

// A lock file that is none is refused with what to do about it.
func TestLockThatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	place(t, filepath.Join(dir, "lock"), "", 0o700)
	_, err := lockDir(dir, "lock", "the state directory", "me")
	if refused := refusal.From(err); refused == nil || refused.Hint == "" {
		t.Errorf("%v", err)
	}
}

// A state directory that is open to others may be the place of a mount that is missing: an empty one asks that first.
func TestOpenStateDirectory(t *testing.T) {
	for file, mounted := range map[string]bool{"": false, "store": true} {
		dir := filepath.Join(t.TempDir(), "state")
		place(t, dir, file, 0o755)
		refused := refusal.From(privateDir(dir))
		if refused == nil || !strings.Contains(refused.Hint, "chmod 700") || strings.Contains(refused.Hint, "mount") == mounted {
			t.Errorf("%q in it: %+v", file, refused)
		}
	}
}

// What a wrong --pool or --listen meets says what to do next.
func TestPlacesThatCantBe(t *testing.T) {
	for _, wrong := range []func(*Options){
		func(o *Options) { o.Pool = "/proc/nowhere/pool" },
		func(o *Options) { o.Listen = []string{"nbd+unix:///?socket=/proc/nowhere/nbd.sock"} },
	} {
		o := options(t)
		wrong(&o)
		r := refusal.From(Run(t.Context(), o))
		if r == nil || r.Code != refusal.Failed || r.Hint == "" || !strings.Contains(r.Message, "/proc/nowhere") {
			t.Errorf("%+v", r)
		}
	}
}
