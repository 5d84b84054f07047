package cli

import (
	"strings"
	"testing"

	"nbdcrypt/pkg/refusal"
)

// An argument that is empty, as of a shell variable that is not set, is nothing's name: neither all disks nor the default key is meant.
func TestEmptyNames(t *testing.T) {
	f := serveFake(t)
	for _, line := range [][]string{{"key", "show", ""}, {"key", "disable", ""}, {"disk", "show", ""}, {"check", ""}, {"role", "revoke", "", "user"},
		{"disk", "create", "d", "--size", "1M", "--key", ""}, {"key", "import", "k", "--token", "t", "--material", "m", "--expires", ""},
		{"project", "set", "p", "--default-key", ""}, {"disk", "rewrap", "d", "--key", ""}, {"key", "rewrap", "k", "--to", ""}} {
		f.asked = nil
		if got := try(t, f.run, "", line...); got.code != int(refusal.Usage) || !strings.Contains(got.err, "empty") && !strings.Contains(got.err, "missing") || len(f.asked) > 0 {
			t.Errorf("%q: %+v, asked %q", line, got, f.asked)
		}
	}
}
