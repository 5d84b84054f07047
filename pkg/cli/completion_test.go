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
	for _, line := range []string{"grant create", "key create k1", "disk create d1 --size 1M", "disk create d2 --size 1M", "image create i1 --from-disk d1", "snapshot create d1 s1", "backup create d1 b1", "backup create d2 b2", "snapshot create d2 s2",
		"server create web1 --image i1 --data-disk size=1M", "server create web2 --image i1", "scaling config create c1 --from-server web1", "scaling group create g1 --config c1 --min 0 --max 3"} {
		if got := try(t, f.run, "", strings.Fields(line)...); got.code != 0 {
			t.Fatalf("%s: %+v", line, got)
		}
	}
	const all = "d1 d2 web1-system web1-data-1 web2-system"
	for _, c := range []struct{ line, want string }{
		{"attach |", all}, {"attach d1 --device |", "auto"}, {"detach d|", all}, {"disk show |", all}, {"disk show d1 |", ""}, {"check |", all},
		{"key show |", "evs/default k1"}, {"key show k1 |", ""}, {"key create |", ""}, {"disk create x --key |", "evs/default k1"},
		{"disk create x --sector-size |", "512 4096"}, {"completion |", "bash zsh fish powershell"},
		{"root slot remove |", "key-file"}, {"root slot remove key-file |", ""}, {"root slot add |", "credential key-file passphrase pkcs11 tpm2"}, {"root slot reseal |", "key-file"}, {"root slot add tpm2 --pcrs |", "sha256:7 sha256:4,7 none"},
		{"backup |", "create delete export import key list prune show verify"}, {"backup show |", "b1 b2"}, {"backup show b1 |", ""}, {"backup verify |", "b1 b2"}, {"backup delete |", "b1 b2"}, {"backup export |", "b1 b2"},
		{"backup create |", all}, {"backup prune |", all}, {"backup list --disk |", all}, {"disk create x --from-backup |", "b1 b2"},
		{"snapshot show |", "s1 s2"}, {"snapshot show s1 |", ""}, {"snapshot create |", all}, {"snapshot create d1 |", ""}, {"snapshot rollback |", all},
		{"snapshot rollback d1 |", "s1"}, {"snapshot rollback d1 s1 |", ""}, {"snapshot list --disk |", all}, {"disk create x --from-snapshot |", "s1 s2"},
		{"image |", "copy create delete list show"}, {"image show |", "i1"}, {"image delete i1 |", ""}, {"image copy |", "i1"}, {"image copy i1 |", ""},
		{"image copy i1 x --key |", "evs/default k1"}, {"image create x --from-disk |", all}, {"disk create x --from-image |", "i1"}, {"image create x --format |", "auto raw qcow2 vmdk vhdx vdi"}, {"image create x --key |", "evs/default k1"},
		{"image create x --from-server |", "web1 web2"}, {"server |", "attach console create delete detach list show start stop"}, {"server show |", "web1 web2"}, {"server show web1 |", ""},
		{"server start web2 |", "web1"}, {"server stop |", "web1 web2"}, {"server console |", "web1 web2"}, {"server delete |", "web1 web2"}, {"server attach |", "web1 web2"}, {"server attach web1 |", all},
		{"server attach web1 d1 |", ""}, {"server detach |", "web1 web2"}, {"server detach web1 |", "web1-system web1-data-1"}, {"server detach web1 d1 |", ""}, {"server create x --image |", "i1"},
		{"server create x --key |", "evs/default k1"}, {"server create x --network |", "user none"}, {"server create x --cpus |", ""}, {"server create |", ""},
		{"server create x --data-disk |", "size= encrypted plain key= sector-size=512 sector-size=4096"}, {"server create x --data-disk size=1G,|", "size=1G,encrypted size=1G,plain size=1G,key= size=1G,sector-size=512 size=1G,sector-size=4096"},
		{"server create x --data-disk size=1G,key=|", "size=1G,key=evs/default size=1G,key=k1"},
		{"scaling config create x --from-server |", "web1 web2"}, {"scaling config create x --from-image |", "i1"}, {"scaling config show |", "c1"}, {"scaling config delete c1 |", ""}, {"scaling group create x --config |", "c1"},
		{"scaling group show |", "g1"}, {"scaling group scale |", "g1"}, {"scaling group scale g1 |", ""}, {"scaling group delete |", "g1"}, {"scaling group create x --min |", ""},
		{"disk |", "create delete escrow export extend list rekey rewrap show"}, {"--project shop attach |", all},
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
