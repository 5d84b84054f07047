package vm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nbdcrypt/pkg/refusal"
)

func placed(t *testing.T, run, runtime string) (*directory, error) {
	t.Helper()
	r := newRunner(Options{RunDir: run, RuntimeDir: runtime}, "", quick)
	r.server.Name = "web1"
	d, err := r.directory("id")
	if err == nil {
		t.Cleanup(d.remove)
	}
	return d, err
}

// The first place that is ours is taken. What is not, because it is open to others, a link, or a file, is not believed.
func TestPlaces(t *testing.T) {
	t.Parallel()
	run, runtime := t.TempDir(), t.TempDir()
	d, err := placed(t, run, runtime)
	if err != nil || d.path != run+"/servers/id" {
		t.Fatal(d, err)
	}
	if info, err := os.Stat(d.path); err != nil || info.Mode().Perm() != 0o700 {
		t.Error(info, err)
	}
	for name, spoil := range map[string]func(servers string) error{
		"open":  func(servers string) error { return os.Chmod(servers, 0o755) },
		"file":  func(servers string) error { _ = os.Remove(servers); return os.WriteFile(servers, nil, 0o600) },
		"link":  func(servers string) error { _ = os.Remove(servers); return os.Symlink(t.TempDir(), servers) },
		"gone":  func(servers string) error { return os.RemoveAll(filepath.Dir(servers)) },
		"unset": nil,
	} {
		other := ""
		if spoil != nil {
			other = filepath.Join(t.TempDir(), "run")
			_ = os.MkdirAll(other+"/servers", 0o700)
			if err := spoil(other + "/servers"); err != nil {
				t.Fatal(err)
			}
		}
		d, err := placed(t, other, runtime)
		if err != nil || d.path != runtime+"/nbdcrypt/servers/id" {
			t.Error(name, d, err)
			continue
		}
		d.remove()
		if _, err := os.Stat(d.path); !os.IsNotExist(err) {
			t.Error(name, "it is still there:", err)
		}
	}
}

// A directory whose runner lives is refused; what a killed one left is used again.
func TestOneRunner(t *testing.T) {
	t.Parallel()
	run := t.TempDir()
	first, err := placed(t, run, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := placed(t, run, ""); refusal.CodeOf(err) != refusal.Busy || !strings.Contains(err.Error(), "server web1 is still run by a process") {
		t.Error(err)
	}
	l, err := first.listen(consoleSocket)
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	_ = first.file.Close() // a kill
	again, err := placed(t, run, "")
	if err != nil {
		t.Fatal(err)
	}
	l, err = again.listen(consoleSocket)
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}
