package cli

import (
	"strings"
	"testing"
)

// complete asks as a shell does, and returns the words without their descriptions.
func completions(t *testing.T, run string, args ...string) string {
	t.Helper()
	got := try(t, run, "", append([]string{"__complete"}, args...)...)
	if got.code != 0 {
		t.Fatalf("%q: %+v", args, got)
	}
	var words []string
	for _, line := range strings.Split(strings.TrimSpace(got.out), "\n") {
		word, _, _ := strings.Cut(line, "\t")
		if !strings.HasPrefix(word, ":") {
			words = append(words, word)
		}
	}
	return strings.Join(words, " ")
}

func TestCompletesNames(t *testing.T) {
	f := serveFake(t)
	for _, line := range []string{"grant create", "key create k1", "disk create d1 --size 1M", "disk create d2 --size 1M"} {
		if got := try(t, f.run, "", strings.Fields(line)...); got.code != 0 {
			t.Fatalf("%s: %+v", line, got)
		}
	}
	for _, c := range []struct{ line, want string }{
		{"attach |", "d1 d2"}, {"detach d|", "d1 d2"}, {"disk show |", "d1 d2"}, {"disk show d1 |", ""}, {"check |", "d1 d2"},
		{"key show |", "evs/default k1"}, {"key show k1 |", ""}, {"key create |", ""}, {"disk create x --key |", "evs/default k1"},
		{"disk create x --sector-size |", "512 4096"}, {"completion |", "bash zsh fish powershell"},
		{"root slot remove |", "key-file"}, {"root slot remove key-file |", ""}, {"root slot add |", "passphrase"},
		{"disk |", "create delete escrow extend list show"}, {"--project shop attach |", "d1 d2"},
	} {
		line := strings.TrimSuffix(c.line, "|")
		cut := strings.LastIndex(line, " ") + 1
		args := append(strings.Fields(line[:cut]), line[cut:])
		if got := completions(t, f.run, args...); got != c.want {
			t.Errorf("%s: %q, want %q", c.line, got, c.want)
		}
	}
	f.asked = nil
	completions(t, f.run, "--project", "shop", "attach", "")
	if len(f.asked) != 1 || !strings.Contains(f.asked[0], "project=shop") {
		t.Errorf("asked %q", f.asked)
	}
	if got := completions(t, f.run+"/none", "attach", ""); got != "" {
		t.Errorf("without a daemon: %q", got)
	}
}
