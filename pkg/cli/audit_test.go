package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/pkg/audit/chain"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// auditList is the fake's: the records that it has, then what refuses.
func (f *fake) auditList(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, r.Method+" "+r.URL.RequestURI())
	lines := json.NewEncoder(w)
	for _, rec := range f.records {
		_ = lines.Encode(rec)
	}
	if f.refuse != nil {
		_ = lines.Encode(control.ErrorBody{Error: control.ErrorOf(f.refuse)})
	}
}

func TestAuditList(t *testing.T) {
	f := serveFake(t)
	if got := try(t, f.run, "", "audit", "list", "--json"); got.code != 0 || got.out != "[]\n" {
		t.Errorf("no records: %+v", got)
	}
	f.records = []control.AuditRecord{
		{Seq: 1, Time: moment0(), User: "bob", Verb: "attach", Resource: "db1", Outcome: "ok", Key: "k/1"},
		{Seq: 2, Time: moment0(), User: "eve", Verb: "attach", Resource: "a\x1b[2Jb", Outcome: "refused", Code: 4, Message: "key k is Disabled"},
	}
	got := try(t, f.run, "", "audit", "list")
	if got.code != 0 || strings.Count(got.out, "\n") != 3 || !strings.Contains(got.out, `"a\x1b[2Jb": key k is Disabled`) || strings.Contains(got.out, "\x1b") {
		t.Errorf("for people: %+v", got)
	}
	got = try(t, f.run, "", "audit", "list", "--json")
	var list []control.AuditRecord
	if err := json.Unmarshal([]byte(got.out), &list); err != nil || len(list) != 2 || list[1].Resource != "a\x1b[2Jb" || list[0].Key != "k/1" {
		t.Errorf("as JSON: %v, %+v", err, got)
	}
	got = try(t, f.run, "", "audit", "list", "--json", "--follow")
	if lines := strings.Split(strings.TrimSpace(got.out), "\n"); got.code != 0 || len(lines) != 2 || !json.Valid([]byte(lines[1])) {
		t.Errorf("followed: %+v", got)
	}
	// What breaks off is an error, after what came before it.
	f.refuse = refusal.New(refusal.Damaged, "look", "line 3 was altered")
	if got := try(t, f.run, "", "audit", "list"); got.code != 8 || !strings.Contains(got.out, "db1") || !strings.Contains(got.err, "line 3 was altered") {
		t.Errorf("broken off: %+v", got)
	}
}

func TestAuditListAsks(t *testing.T) {
	f := serveFake(t)
	for _, c := range []struct{ args, want string }{
		{"--verb key --user bob --outcome ok --limit 5", "limit=5&outcome=ok&project=default&user=bob&verb=key"},
		{"--since 2026-01-02T15:04:05Z --until 2026-01-03T00:00:00+01:00", "project=default&since=2026-01-02T15%3A04%3A05Z&until=2026-01-03T00%3A00%3A00%2B01%3A00"},
		{"--follow --project shop", "follow=true&project=shop"},
	} {
		got := try(t, f.run, "", append([]string{"audit", "list"}, strings.Fields(c.args)...)...)
		if asked := f.asked[len(f.asked)-1]; got.code != 0 || asked != "GET /v1/audit?"+c.want {
			t.Errorf("%s asks %s: %+v", c.args, asked, got)
		}
	}
	for _, args := range []string{"--since yesterday", "--until -5h", "--limit 0", "--limit -1", "--outcome bad", "--since xd"} {
		if got := try(t, f.run, "", append([]string{"audit", "list"}, strings.Fields(args)...)...); got.code != 2 {
			t.Errorf("%s: %+v", args, got)
		}
	}
}

func TestParseWhen(t *testing.T) {
	now := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{"90m": "2026-03-10T10:30:00Z", "7d": "2026-03-03T12:00:00Z", "2026-03-09": "2026-03-09T00:00:00Z", "2026-03-09T01:02:03Z": "2026-03-09T01:02:03Z"} {
		if got, ok := parseWhen(text, now); !ok || moment(got) != want {
			t.Errorf("%s is %v, %v", text, got, ok)
		}
	}
}

func TestAuditHeadAndVerify(t *testing.T) {
	f := serveFake(t)
	hash := strings.Repeat("ab", 32)
	f.head = control.AuditHead{Seq: 7, Hash: hash, Time: moment0()}
	if got := try(t, f.run, "", "audit", "head"); got.code != 0 || got.out != "7:"+hash+"\n" {
		t.Errorf("%+v", got)
	}
	got := try(t, f.run, "", "audit", "verify", "--head", "7:"+hash, "--head", "6:"+hash)
	if got.code != 0 || !strings.Contains(got.out, "whole: 7 records") || !strings.Contains(got.out, "2 heads") {
		t.Errorf("%+v", got)
	}
	if asked := strings.Join(f.asked, "\n"); !strings.Contains(asked, `{"heads":[{"seq":7,"hash":"`+hash+`"},{"seq":6,`) {
		t.Errorf("it asks %s", asked)
	}
	for _, head := range []string{"", "7", "7:" + hash[1:], "x:" + hash, "7:" + strings.ToUpper(hash), "-1:" + hash, "0:" + hash} {
		if got := try(t, f.run, "", "audit", "verify", "--head", head); got.code != 2 {
			t.Errorf("--head %q: %+v", head, got)
		}
	}
}

// Rule C18: a copy of the log is verified without a daemon; what only keys would tell, a head that was kept does.
func TestRuleC18_VerifyFile(t *testing.T) {
	var log []byte
	var heads []string
	prev := chain.Genesis(uuid.New())
	for i := range 4 {
		rec := chain.Record{Seq: uint64(i + 1), Time: moment0(), Verb: "attach", User: "bob", Prev: prev}
		line, err := chain.Encode(&rec)
		if err != nil {
			t.Fatal(err)
		}
		log, prev, heads = append(append(log, line...), '\n'), rec.Hash, append(heads, headWord(rec.Seq, rec.Hash))
	}
	path := filepath.Join(t.TempDir(), "copy")
	verify := func(log []byte, args ...string) answer {
		if err := os.WriteFile(path, log, 0o600); err != nil {
			t.Fatal(err)
		}
		return try(t, "/nowhere", "", append([]string{"audit", "verify", "--json", "--file", path}, args...)...)
	}
	got := verify(log, "--head", heads[3], "--head", heads[0])
	var v control.AuditVerified
	if err := json.Unmarshal([]byte(got.out), &v); err != nil || got.code != 0 || v.Records != 4 || v.Heads != 2 || v.Bytes != int64(len(log)) || headWord(v.Head.Seq, v.Head.Hash) != heads[3] {
		t.Errorf("whole: %v, %+v", err, got)
	}
	cut := len(log) / 4 * 3
	for name, c := range map[string]struct {
		log  []byte
		head string
		line int
	}{
		"edit":               {[]byte(strings.Replace(string(log), "bob", "eve", 1)), heads[3], 1},
		"cut":                {log[:strings.LastIndex(string(log[:len(log)-1]), "\n")+1], heads[3], 3},
		"cut inside":         {log[:cut+20], heads[0], 4},
		"another kept head":  {log, "2:" + strings.Repeat("0", 64), 2},
		"a head that is far": {log, "9:" + strings.Repeat("0", 64), 4},
	} {
		if got := verify(c.log, "--head", c.head); got.code != 8 || !strings.Contains(got.err, fmt.Sprintf("line %d", c.line)) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := try(t, "/nowhere", "", "audit", "verify", "--file", path+"x"); got.code != 3 {
		t.Errorf("no file: %+v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := verifyFile(ctx, path, nil, func(control.Job) {}); err == nil {
		t.Error("an interrupted verification says that all is well")
	}
}

// A daemon that finds its log altered does not start: then the log is looked at where it should lie.
func TestAuditVerifyWithoutADaemon(t *testing.T) {
	state := t.TempDir()
	line, err := chain.Encode(&chain.Record{Seq: 1, Prev: chain.Genesis(uuid.New()), Time: moment0(), Verb: "status", Outcome: chain.OK})
	if err != nil {
		t.Fatal(err)
	}
	verify := func(log string) answer {
		if err := os.WriteFile(filepath.Join(state, "audit.log"), []byte(log), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("STATE_FOR_TEST", state)
		return try(t, filepath.Join(state, "none"), "", "audit", "verify")
	}
	whole := string(line) + "\n"
	for what, c := range map[string]struct {
		log  string
		code refusal.Code
		says string
	}{
		"whole":  {whole, refusal.Unreachable, "by its hashes alone the log"},
		"torn":   {whole + `{"seq":2`, refusal.Unreachable, "by its hashes alone the log"},
		"edited": {strings.Replace(whole, "status", "detach", 1), refusal.Damaged, "line 1"},
	} {
		if got := verify(c.log); got.code != int(c.code) || !strings.Contains(got.err, c.says) {
			t.Errorf("%s: %+v", what, got)
		}
	}
	if err := os.Remove(filepath.Join(state, "audit.log")); err != nil {
		t.Fatal(err)
	}
	if got := try(t, filepath.Join(state, "none"), "", "audit", "verify"); got.code != int(refusal.Unreachable) {
		t.Errorf("missing: %+v", got)
	}
}
