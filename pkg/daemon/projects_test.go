package daemon

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"nbdcrypt/nbd"
	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// read decodes an answer.
func read[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

// names are those of what a list answers.
func names(t *testing.T, text string) string {
	t.Helper()
	var out []string
	for _, x := range read[[]struct{ Name, Alias string }](t, text) {
		out = append(out, x.Name+x.Alias)
	}
	return strings.Join(out, " ")
}

// Rule B8: who has a grant of a key attaches what is under it, sees that and nothing else, and after it is revoked nothing; a grant to encrypt makes disks
// under that key only, also where it is the project's default; several grants add up.
func TestRuleB8_GrantsOfAKey(t *testing.T) {
	d := startShop(t)
	in := "?project=shop"
	const decrypt, encrypt, describe = inShop + 4, inShop + 5, inShop + 6
	by(t, d, decrypt, "POST /v1/disks/vault/attach"+in, "{}", refusal.OK)
	by(t, d, decrypt, "POST /v1/disks/apart/attach"+in, "{}", refusal.Denied)
	by(t, d, decrypt, "POST /v1/disks/none/attach"+in, "{}", refusal.Denied)
	by(t, d, decrypt, "POST /v1/disks/vault/detach"+in, "", refusal.OK)
	by(t, d, encrypt, "POST /v1/disks/vault/attach"+in, "{}", refusal.Denied)
	if got := names(t, by(t, d, decrypt, control.RouteDiskList+in, "", refusal.OK)); got != "vault" {
		t.Errorf("who may decrypt sees the disks %s", got)
	}
	if got := names(t, by(t, d, describe, control.RouteKeyList+in, "", refusal.OK)); got != "mine" {
		t.Errorf("who may describe sees the keys %s", got)
	}
	for body, want := range map[string]refusal.Code{
		`{"name":"a","size":1048576,"key":"mine"}`: refusal.OK, `{"name":"b","size":1048576,"key":"other"}`: refusal.Denied, `{"name":"c","size":1048576}`: refusal.Denied,
		`{"name":"d","size":1048576,"encrypted":true}`: refusal.Denied, `{"name":"e","size":1048576,"encrypted":false}`: refusal.Denied, `{"name":`: refusal.Denied,
	} {
		by(t, d, encrypt, control.RouteDiskCreate+in, body, want)
	}
	must(t, d, "PATCH /v1/projects/shop", `{"encrypt_by_default":true,"default_key":"mine"}`)
	by(t, d, encrypt, control.RouteDiskCreate+in, `{"name":"c","size":1048576}`, refusal.OK)
	by(t, d, encrypt, control.RouteDiskCreate+in, `{"name":"e","size":1048576,"encrypted":false}`, refusal.Denied)
	must(t, d, "POST /v1/keys/mine/grants"+in, fmt.Sprintf(`{"user":"%d","operation":"decrypt"}`, encrypt))
	by(t, d, encrypt, "POST /v1/disks/c/attach"+in, "{}", refusal.OK)

	grants := read[[]control.KeyGrant](t, by(t, d, decrypt, "GET /v1/keys/mine/grants"+in, "", refusal.OK))
	if len(grants) != 1 || grants[0].UID != decrypt || grants[0].Operation != "decrypt" || grants[0].By != "root" {
		t.Fatalf("of the grants they see %+v", grants)
	}
	end := `{"grant":"` + grants[0].ID + `"}`
	by(t, d, encrypt, "POST /v1/keys/mine/grants/retire"+in, end, refusal.Denied)
	by(t, d, encrypt, "POST /v1/keys/mine/grants/revoke"+in, end, refusal.Denied)
	by(t, d, inShop+1, "POST /v1/keys/mine/grants/revoke"+in, end, refusal.OK)
	by(t, d, decrypt, "POST /v1/disks/vault/attach"+in, "{}", refusal.Denied)
	for _, g := range read[[]control.KeyGrant](t, must(t, d, "GET /v1/keys/mine/grants"+in, "")) {
		if g.UID == encrypt && g.Operation == "decrypt" {
			by(t, d, encrypt, "POST /v1/keys/mine/grants/retire"+in, `{"grant":"`+g.ID+`"}`, refusal.OK)
		}
	}
	by(t, d, encrypt, "POST /v1/disks/c/detach"+in, "", refusal.Denied)
}

// A user that does not exist is named so; one that has a number only can be given rights all the same.
func TestRightsAreForUsers(t *testing.T) {
	d := startShop(t)
	for _, user := range []string{"nobody-has-this-name", "cert:backup", "", "-1"} {
		by(t, d, 0, control.RouteRoleGrant, `{"user":"`+user+`","role":"user"}`, refusal.NotFound)
		by(t, d, 0, "POST /v1/keys/mine/grants", `{"user":"`+user+`","operation":"decrypt"}`, refusal.NotFound)
	}
	r := read[control.Role](t, must(t, d, control.RouteRoleGrant, `{"user":"root","role":"auditor"}`))
	if r.UID != 0 || r.User != "root" || r.Role != "auditor" || r.Project != "default" || r.Warnings != nil {
		t.Errorf("the role is %+v", r)
	}
	by(t, d, 0, control.RouteRoleGrant, `{"user":"root","role":"king"}`, refusal.Usage)
	by(t, d, 0, control.RouteRoleRevoke, `{"user":"4321","role":"user"}`, refusal.NotFound)
}

// Rule C17: the second of both says so.
func TestRuleC17_TheSecondSaysSo(t *testing.T) {
	d := startShop(t)
	r := read[control.Role](t, must(t, d, control.RouteRoleGrant, fmt.Sprintf(`{"user":"%d","role":"user"}`, inDefault+1)))
	if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "nbdcrypt role revoke 3001 user --project default") {
		t.Errorf("the warning is %q", r.Warnings)
	}
	g := read[control.KeyGrant](t, must(t, d, "POST /v1/keys/mine/grants", fmt.Sprintf(`{"user":"%d","operation":"decrypt"}`, inDefault+1)))
	if len(g.Warnings) != 1 || !strings.Contains(g.Warnings[0], "nbdcrypt key revoke mine "+g.ID) {
		t.Errorf("the warning is %q", g.Warnings)
	}
	by(t, d, inShop+1, control.RouteRoleGrant+"?project=shop", fmt.Sprintf(`{"user":"%d","role":"user"}`, inShop+1), refusal.Denied)
	by(t, d, inShop+1, "POST /v1/keys/mine/grants?project=shop", fmt.Sprintf(`{"user":"%d","operation":"decrypt"}`, inShop+1), refusal.Denied)
}

// Rule C1: encryption by default is for disks that are made from then on without a word on it, under the project's own choice of a key.
func TestRuleC1_EncryptByDefault(t *testing.T) {
	d := startShop(t)
	made := func(body string) control.Disk {
		t.Helper()
		return read[control.Disk](t, by(t, d, inShop+2, control.RouteDiskCreate+"?project=shop", body, refusal.OK))
	}
	before := made(`{"name":"before","size":1048576}`)
	if before.Encrypted || made(`{"name":"e0","size":1048576,"encrypted":true}`).Key.Alias != "evs/default" {
		t.Error("a project encrypts by default from the start, or not under evs/default")
	}
	p := read[control.Project](t, by(t, d, inShop+1, "PATCH /v1/projects/shop", `{"encrypt_by_default":true}`, refusal.OK))
	if !p.EncryptByDefault || p.DefaultKey.Alias != "evs/default" || !p.Granted || p.Warnings != nil || p.By != "root" {
		t.Errorf("the project is %+v", p)
	}
	if k := made(`{"name":"e1","size":1048576}`).Key; k == nil || k.Alias != "evs/default" {
		t.Errorf("a disk without a word is under %+v", k)
	}
	must(t, d, "PATCH /v1/projects/shop", `{"default_key":"mine"}`)
	for body, alias := range map[string]string{`{"name":"e2","size":1048576}`: "mine", `{"name":"e3","size":1048576,"encrypted":true}`: "mine",
		`{"name":"e4","size":1048576,"key":"other"}`: "other", `{"name":"e5","size":1048576,"key":"evs/default"}`: "evs/default"} {
		if k := made(body).Key; k == nil || k.Alias != alias {
			t.Errorf("%s is under %+v", body, k)
		}
	}
	if made(`{"name":"plain","size":1048576,"encrypted":false}`).Encrypted {
		t.Error("a disk that is asked for as plain is encrypted")
	}
	if now := read[control.Disk](t, must(t, d, "GET /v1/disks/before?project=shop", "")); now.Encrypted {
		t.Error("a disk of before is another now")
	}
	if read[control.Disk](t, must(t, d, control.RouteDiskCreate, `{"name":"elsewhere","size":1048576}`)).Encrypted {
		t.Error("another project encrypts by default too")
	}
	must(t, d, "POST /v1/keys/mine/disable?project=shop", "")
	by(t, d, inShop+2, control.RouteDiskCreate+"?project=shop", `{"name":"e6","size":1048576}`, refusal.KeyForbids) // and not plain
	by(t, d, 0, "PATCH /v1/projects/shop", `{"default_key":"mine"}`, refusal.KeyForbids)
	by(t, d, 0, "PATCH /v1/projects/shop", `{"default_key":"none"}`, refusal.NotFound)
	p = read[control.Project](t, must(t, d, "PATCH /v1/projects/shop", `{"default_key":"evs/default","encrypt_by_default":false}`))
	if p.DefaultKey.Alias != "evs/default" || made(`{"name":"e7","size":1048576}`).Encrypted {
		t.Errorf("back again it is %+v", p)
	}
	must(t, d, control.RouteProjectCreate, `{"name":"bare"}`)
	p = read[control.Project](t, must(t, d, "PATCH /v1/projects/bare", `{"encrypt_by_default":true}`))
	if p.DefaultKey != nil || p.Granted || len(p.Warnings) != 1 {
		t.Errorf("a project without a grant is %+v", p)
	}
	by(t, d, 0, control.RouteDiskCreate+"?project=bare", `{"name":"a","size":1048576}`, refusal.Denied)
}

// A project is deleted when nothing is in it any more; its default key is destroyed, and one of its name begins with nothing.
func TestProjectDelete(t *testing.T) {
	d := startShop(t)
	yes := "DELETE /v1/projects/shop?yes=true"
	by(t, d, inShop+1, yes, "", refusal.Denied)
	by(t, d, 0, yes, "", refusal.Busy)
	for _, disk := range []string{"vault", "apart"} {
		must(t, d, "DELETE /v1/disks/"+disk+"?project=shop&yes=true", "")
	}
	if answer := by(t, d, 0, yes, "", refusal.Busy); !strings.Contains(answer, "golden") {
		t.Errorf("an image is in the way, and it says %s", answer)
	}
	must(t, d, "DELETE /v1/images/golden?project=shop&yes=true", "")
	if answer := by(t, d, 0, yes, "", refusal.Busy); !strings.Contains(answer, "mine") || !strings.Contains(answer, "schedule-deletion") {
		t.Errorf("keys are in the way, and it says %s", answer)
	}
	must(t, d, control.RouteProjectCreate, `{"name":"bare"}`)
	must(t, d, control.RouteGrantCreate+"?project=bare", "")
	must(t, d, control.RouteRoleGrant+"?project=bare", `{"user":"4321","role":"security-admin"}`)
	key := read[control.Key](t, must(t, d, "GET /v1/keys/evs%2Fdefault?project=bare", "")).ID
	must(t, d, "POST /v1/keys/evs%2Fdefault/grants?project=bare", `{"user":"4321","operation":"describe"}`)
	by(t, d, 0, "DELETE /v1/projects/bare", "", refusal.Confirm)
	must(t, d, "DELETE /v1/projects/bare?yes=true", "")
	by(t, d, 0, "GET /v1/projects/bare", "", refusal.NotFound)
	by(t, d, 4321, control.RouteKeyList+"?project=bare", "", refusal.Denied)
	if left := recordsAbout(t, d, key, "bare"); len(left) > 0 {
		t.Errorf("what is left of it: %q", left)
	}
	must(t, d, control.RouteProjectCreate, `{"name":"bare"}`)
	if p := read[control.Project](t, must(t, d, "GET /v1/projects/bare", "")); p.Granted || p.DefaultKey != nil {
		t.Errorf("a new one of that name is %+v", p)
	}
	by(t, d, 4321, control.RouteKeyList+"?project=bare", "", refusal.Denied)
	by(t, d, 0, "DELETE /v1/projects/default?yes=true", "", refusal.Busy)
	by(t, d, 0, "DELETE /v1/projects/none?yes=true", "", refusal.NotFound)
}

// recordsAbout are the names of records that hold one of the words as a part.
func recordsAbout(t *testing.T, d *Daemon, words ...string) (found []string) {
	t.Helper()
	err := d.catalog.View(t.Context(), func(r catalog.Reader) error {
		for after := ""; ; {
			pairs, err := r.Scan("", after, 256)
			if err != nil || len(pairs) == 0 {
				return err
			}
			for _, p := range pairs {
				after = p.Key
				for _, w := range words {
					if strings.Contains("/"+p.Key+"/", "/"+w+"/") {
						found = append(found, p.Key)
					}
				}
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Whatever puts something into a project keeps it from being deleted meanwhile.
func TestWhatMakesHoldsTheProject(t *testing.T) {
	for _, r := range routes {
		into := strings.HasSuffix(r.verb, " create") && r.action != access.ProjectCreate && !strings.HasPrefix(r.verb, "root ") || r.action == access.RoleGrant || r.action == access.ProjectSet
		if into != r.is(makes) {
			t.Errorf("%s (%s) holds the project: %v", r.pattern, r.verb, r.is(makes))
		}
	}
	d := startShop(t)
	d.projects.RLock() // somebody makes a disk
	ended := make(chan struct{})
	go func() { d.call(t, "DELETE /v1/projects/shop?yes=true", nbd.Peer{}, ""); close(ended) }()
	select {
	case <-ended:
		t.Error("a project is deleted while something is made in it")
	case <-time.After(20 * time.Millisecond):
	}
	d.projects.RUnlock()
	<-ended
}

// What is told of all projects is for who oversees the store; others hear of theirs, also through status, check, metrics and jobs.
func TestRuleA41_OtherProjectsAreNotTold(t *testing.T) {
	d := startShop(t)
	for _, project := range []string{"default", "shop"} {
		must(t, d, "POST /v1/disks/vault/attach?project="+project, "{}")
	}
	d.warn("disk shop/vault is told of")
	for _, c := range []struct {
		uid             uint32
		query           string
		disks, attached int
		warned          bool
	}{
		{0, "", 4, 2, true}, {inDefault + 1, "", 4, 2, true}, {inDefault + 3, "", 4, 2, true}, {0, "?project=shop", 2, 1, true},
		{inDefault + 2, "", 2, 1, false}, {inShop + 1, "?project=shop", 2, 1, false}, {inShop + 2, "", 0, 0, false}, {newcomer, "", 0, 0, false},
	} {
		s := read[control.Status](t, by(t, d, c.uid, control.RouteStatus+c.query, "", refusal.OK))
		warned := strings.Contains(strings.Join(s.Warnings, " "), "shop/vault")
		if s.Disks != c.disks || s.Attached != c.attached || warned != c.warned {
			t.Errorf("status%s for %d: %d disks, %d attached, warnings %q", c.query, c.uid, s.Disks, s.Attached, s.Warnings)
		}
	}
	by(t, d, inDefault+2, control.RouteStatus+"?keys=true", "", refusal.Denied)
	by(t, d, inShop+1, control.RouteStatus+"?keys=true&project=shop", "", refusal.Denied)
	for _, c := range []struct {
		uid               uint32
		query             string
		own, other, whole bool
	}{{0, "", true, true, true}, {inDefault + 3, "", true, true, true}, {inDefault + 2, "", true, false, false}, {inShop + 3, "?project=shop", false, true, false}} {
		text := by(t, d, c.uid, control.RouteMetrics+c.query, "", refusal.OK)
		for sign, want := range map[string]bool{`project="default"`: c.own, `project="shop"`: c.other, "nbdcrypt_keys_in_memory": c.whole, "go_goroutines": c.whole} {
			if strings.Contains(text, sign) != want {
				t.Errorf("metrics%s for %d name %s: %v", c.query, c.uid, sign, !want)
			}
		}
	}
	d.checksTellOfOwn(t)
}

// checksTellOfOwn damages a record of each project, and looks for both in what is found.
func (d *Daemon) checksTellOfOwn(t *testing.T) {
	t.Helper()
	key := map[string]string{}
	for _, project := range []string{"default", "shop"} {
		key[project] = read[control.Key](t, must(t, d, "GET /v1/keys/other?project="+project, "")).ID
		err := d.catalog.Update(t.Context(), newRequest(), func(txn catalog.Txn) error { return txn.Put("key/"+project+"/"+key[project], []byte("{}")) })
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		uid             uint32
		query           string
		own, other      bool
		disks, keyCount int
	}{{0, "", true, true, 4, 6}, {inDefault + 3, "", true, true, 4, 6}, {inDefault + 2, "", true, false, 2, 3}, {inShop + 2, "?project=shop", false, true, 2, 3}, {0, "?project=shop", false, true, 2, 3}} {
		status, body := d.call(t, control.RouteCheck+c.query, nbd.Peer{UID: c.uid}, "{}")
		job := read[control.Job](t, body)
		if status != http.StatusAccepted {
			t.Fatalf("check%s by %d: %d %s", c.query, c.uid, status, body)
		}
		var err error
		for job.State == control.JobRunning && err == nil {
			job, err = d.jobs.Get(t.Context(), job.ID, job.Revision, time.Minute)
		}
		if err != nil || job.State != control.JobDone {
			t.Fatalf("check%s by %d: %+v, %v", c.query, c.uid, job, err)
		}
		report := job.Result.(control.CheckReport)
		found := fmt.Sprint(report.Findings)
		if strings.Contains(found, key["default"]) != c.own || strings.Contains(found, key["shop"]) != c.other || report.Disks != c.disks || report.Keys != c.keyCount {
			t.Errorf("check%s for %d: %d disks, %d keys, %s", c.query, c.uid, report.Disks, report.Keys, found)
		}
	}
}
