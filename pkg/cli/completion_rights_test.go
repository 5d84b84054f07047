package cli

import (
	"strings"
	"testing"
)

// Projects, users, roles, operations and grants are completed where they are asked for.
func TestCompletesRights(t *testing.T) {
	f := serveFake(t)
	for _, line := range []string{"project create shop", "project create bar", "key create k1", "role grant carol user", "role grant bob user", "role grant bob auditor",
		"key grant k1 alice decrypt"} {
		if got := try(t, f.run, "", strings.Fields(line)...); got.code != 0 {
			t.Fatalf("%s: %+v", line, got)
		}
	}
	grant := f.rights.grants[0].ID
	for _, c := range []struct{ line, want string }{
		{"project show |", "shop bar"}, {"project set |", "shop bar"}, {"project delete |", "shop bar"}, {"project show shop |", ""}, {"project create |", ""},
		{"project set shop --encrypt-by-default |", "on off"}, {"project set shop --default-key |", "k1"}, {"disk list --project |", "shop bar"},
		{"role grant root |", "security-admin user auditor"}, {"role revoke |", "bob carol"}, {"role revoke bob |", "security-admin user auditor"}, {"role revoke bob user |", ""},
		{"key grant |", "k1"}, {"key grant k1 root |", "decrypt encrypt describe"}, {"key grant k1 root decrypt |", ""},
		{"key grants |", "k1"}, {"key revoke |", "k1"}, {"key revoke k1 |", grant}, {"key retire k1 |", grant}, {"key retire k1 x |", ""},
	} {
		line := strings.TrimSuffix(c.line, "|")
		if got := completions(t, f.run, append(strings.Fields(line), "")...); got != c.want {
			t.Errorf("%s: %q, want %q", c.line, got, c.want)
		}
	}
	for _, line := range []string{"role grant", "key grant k1", "attach d --allow"} {
		if got := completions(t, f.run, append(strings.Fields(line), "")...); !strings.Contains(" "+got+" ", " root ") {
			t.Errorf("%s: the users are %q", line, got)
		}
	}
	f.asked = nil
	completions(t, f.run, "project", "set", "shop", "--default-key", "")
	if len(f.asked) != 1 || !strings.Contains(f.asked[0], "project=shop") {
		t.Errorf("asked %q", f.asked)
	}
}
