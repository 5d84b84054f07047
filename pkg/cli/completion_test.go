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
	for _, line := range []string{"grant create", "key create k1", "disk create d1 --size 1M", "disk create d2 --size 1M", "image create i1 --from-disk d1", "snapshot create d1 s1", "backup create d1 b1", "backup create d2 b2", "snapshot create d2 s2"} {
		if got := try(t, f.run, "", strings.Fields(line)...); got.code != 0 {
			t.Fatalf("%s: %+v", line, got)
		}
	}
	for _, c := range []struct{ line, want string }{
		{"attach |", "d1 d2"}, {"attach d1 --device |", "auto"}, {"detach d|", "d1 d2"}, {"disk show |", "d1 d2"}, {"disk show d1 |", ""}, {"check |", "d1 d2"},
		{"key show |", "evs/default k1"}, {"key show k1 |", ""}, {"key create |", ""}, {"disk create x --key |", "evs/default k1"},
		{"disk create x --sector-size |", "512 4096"}, {"completion |", "bash zsh fish powershell"},
		{"root slot remove |", "key-file"}, {"root slot remove key-file |", ""}, {"root slot add |", "credential key-file passphrase pkcs11 tpm2"}, {"root slot reseal |", "key-file"}, {"root slot add tpm2 --pcrs |", "sha256:7 sha256:4,7 none"},
		{"backup |", "create delete export import key list prune show verify"}, {"backup show |", "b1 b2"}, {"backup show b1 |", ""}, {"backup verify |", "b1 b2"}, {"backup delete |", "b1 b2"}, {"backup export |", "b1 b2"},
		{"backup create |", "d1 d2"}, {"backup prune |", "d1 d2"}, {"backup list --disk |", "d1 d2"}, {"disk create x --from-backup |", "b1 b2"},
		{"snapshot show |", "s1 s2"}, {"snapshot show s1 |", ""}, {"snapshot create |", "d1 d2"}, {"snapshot create d1 |", ""}, {"snapshot rollback |", "d1 d2"},
		{"snapshot rollback d1 |", "s1"}, {"snapshot rollback d1 s1 |", ""}, {"snapshot list --disk |", "d1 d2"}, {"disk create x --from-snapshot |", "s1 s2"},
		{"image |", "copy create delete list show"}, {"image show |", "i1"}, {"image delete i1 |", ""}, {"image copy |", "i1"}, {"image copy i1 |", ""},
		{"image copy i1 x --key |", "evs/default k1"}, {"image create x --from-disk |", "d1 d2"}, {"disk create x --from-image |", "i1"}, {"image create x --format |", "auto raw qcow2 vmdk vhdx vdi"}, {"image create x --key |", "evs/default k1"},
		{"disk |", "create delete escrow export extend list rekey rewrap show"}, {"--project shop attach |", "d1 d2"},
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
