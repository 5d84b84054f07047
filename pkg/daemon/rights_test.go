package daemon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nbdcrypt/keystore"
	"nbdcrypt/nbd"
	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/audit"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// Who plays in these tests: a user for each role, and one for each grant of the key mine, in each project. The letters are those of maySee.
const (
	inDefault = 3000
	inShop    = 4000
	newcomer  = 5000
)

var played = map[string]uint32{"A": 1, "U": 2, "R": 3, "D": 4, "E": 5, "S": 6}

// mayAsk is who may ask what, as it should be: A, U and R are the roles security-admin, user and auditor; D, E and S have no role, but the grant decrypt,
// encrypt or describe of the key that the call is about; N has nothing. An "!" is what is about the whole store.
var mayAsk = map[string]string{
	control.RouteStatus: "AURN", control.RouteMetrics: "AUR", control.RouteCheck: "AUR",
	control.RouteGrantCreate: "A", control.RouteGrantList: "AUR", control.RouteGrantRevoke: "A",
	control.RouteKeyCreate: "AU", control.RouteKeyList: "AURS", control.RouteKeyShow: "AURS", control.RouteKeyEnable: "A", control.RouteKeyDisable: "A",
	control.RouteDiskCreate: "UE", control.RouteDiskList: "AURD", control.RouteDiskShow: "AURD", control.RouteDiskExtend: "U", control.RouteDiskDelete: "U",
	control.RouteDiskEscrow: "U", control.RouteDiskExport: "U", control.RouteAttach: "UD", control.RouteDetach: "UD",
	control.RouteSnapshotCreate: "U", control.RouteSnapshotList: "AURD", control.RouteSnapshotShow: "AURD", control.RouteDiskRollback: "U",
	control.RouteImageCreate: "U", control.RouteImageUpload: "U", control.RouteImageCopy: "U", control.RouteImageDelete: "U", control.RouteImageList: "AURD", control.RouteImageShow: "AURD",
	control.RouteBackupCreate: "U", control.RouteBackupList: "AUR", control.RouteBackupShow: "AUR", control.RouteBackupVerify: "AUR", control.RouteBackupKey: "AUR",
	control.RouteBackupExport: "U", control.RouteBackupOffer: "U", control.RouteBackupImport: "U", control.RouteBackupDelete: "U", control.RouteBackupPrune: "U",
	control.RouteServerCreate: "U", control.RouteServerList: "AUR", control.RouteServerShow: "AUR", control.RouteServerRun: "U", control.RouteServerStop: "U",
	control.RouteServerDelete: "U", control.RouteServerAttach: "U", control.RouteServerDetach: "U",
	control.RouteConfigCreate: "U", control.RouteConfigList: "AUR", control.RouteConfigShow: "AUR", control.RouteConfigDelete: "U",
	control.RouteGroupCreate: "U", control.RouteGroupList: "AUR", control.RouteGroupShow: "AUR", control.RouteGroupScale: "U", control.RouteGroupDelete: "U",
	control.RouteRootUnlock: "A!", control.RouteRootPassphrase: "A!", control.RouteRootLock: "A!",
	control.RouteSlotList: "A!", control.RouteSlotAdd: "A!", control.RouteSlotRemove: "A!",
	control.RouteSlotKeyFile: "A!", control.RouteSlotTPM: "A!", control.RouteSlotToken: "A!", control.RouteSlotCredential: "A!", control.RouteSlotGive: "A!", control.RouteSlotReseal: "A!",
	control.RouteRecoveryCreate: "A!", control.RouteRecoveryOpen: "A!", control.RouteRecoveryVerify: "A!",
	control.RouteRoleGrant: "A", control.RouteRoleList: "AR", control.RouteRoleRevoke: "A",
	control.RouteProjectCreate: "A!", control.RouteProjectList: "AURN!", control.RouteProjectShow: "AUR", control.RouteProjectSet: "A", control.RouteProjectDelete: "A!",
	control.RouteKeyGrant: "A", control.RouteKeyGrants: "ARDES", control.RouteKeyGrantRevoke: "A", control.RouteKeyGrantRetire: "DES",
	control.RouteJobList: "AUR", control.RouteJobShow: "AURDES", control.RouteJobCancel: "AUDES",
	control.RouteKeyUpdate: "A", control.RouteKeySchedule: "A", control.RouteKeyCancel: "A", control.RouteKeyDelete: "A",
	control.RouteKeyUses: "AURS", control.RouteKeyPredict: "A", control.RouteClockShow: "AUR", control.RouteClockAccept: "A!",
	control.RouteKeyRotate: "A", control.RouteKeyRotation: "A", control.RouteKeyRewrap: "AU", control.RouteDiskRewrap: "AUD", control.RouteDiskRekey: "U", control.RouteSnapshotDelete: "U",
	control.RouteKeyPrepare: "A", control.RouteKeyImport: "A", control.RouteKeyDeleteMaterial: "A",
	control.RouteAuditList: "AR", control.RouteAuditVerify: "AR!", control.RouteAuditHead: "AR!",
}

// startShop is start with a project shop beside default; both have the key mine with a disk vault under it, the key other, and their players.
func startShop(t *testing.T) *Daemon {
	t.Helper()
	d := start(t)
	must(t, d, control.RouteProjectCreate, `{"name":"shop"}`)
	must(t, d, control.RouteGrantCreate+"?project=shop", "")
	for project, first := range map[string]uint32{"default": inDefault, "shop": inShop} {
		in := "?project=" + project
		must(t, d, control.RouteKeyCreate+in, `{"alias":"mine"}`)
		must(t, d, control.RouteKeyCreate+in, `{"alias":"other"}`)
		must(t, d, control.RouteDiskCreate+in, `{"name":"vault","size":1048576,"key":"mine"}`)
		must(t, d, control.RouteDiskCreate+in, `{"name":"apart","size":1048576,"key":"other"}`)
		must(t, d, control.RouteSnapshotCreate+in, `{"name":"before","disk":"vault"}`)
		must(t, d, control.RouteImageCreate+in, `{"name":"golden","disk":"vault"}`)
		for letter, role := range map[string]access.Role{"A": access.SecurityAdmin, "U": access.User, "R": access.Auditor} {
			must(t, d, control.RouteRoleGrant+in, fmt.Sprintf(`{"user":"%d","role":%q}`, first+played[letter], role))
		}
		for letter, op := range map[string]access.Operation{"D": access.Decrypt, "E": access.Encrypt, "S": access.Describe} {
			must(t, d, "POST /v1/keys/mine/grants"+in, fmt.Sprintf(`{"user":"%d","operation":%q}`, first+played[letter], op))
		}
	}
	return d
}

// must is a call by root that has to succeed.
func must(t *testing.T, d *Daemon, route, body string) string {
	t.Helper()
	return by(t, d, 0, route, body, refusal.OK)
}

// by is a call by somebody that has to end with a code.
func by(t *testing.T, d *Daemon, uid uint32, route, body string, want refusal.Code) string {
	t.Helper()
	status, answer := d.call(t, route, nbd.Peer{UID: uid}, body)
	got := refusal.OK
	if status >= 300 {
		got = codeIn(answer)
	}
	if got != want {
		t.Fatalf("%s %s by %d: %d %s, want the code %d", route, body, uid, status, answer, want)
	}
	return answer
}

// askIdle makes a call about vault, or its key, that is answered by the route's real handler, but whose verb does nothing.
func askIdle(t *testing.T, d *Daemon, r route, uid uint32, project string) (refusal.Code, string) {
	t.Helper()
	idle := r
	idle.do = func(*Daemon, *call) (any, error) { return nil, nil }
	mux := http.NewServeMux()
	mux.Handle(r.pattern, d.handler(idle))
	pattern := strings.NewReplacer("{disk}", "vault", "{snapshot}", "before", "{image}", "golden", "{key}", "mine", "{server}", "web", "{config}", "small", "{group}", "many",
		"{project}", project).Replace(r.pattern)
	w := httptest.NewRecorder()
	whole(mux).ServeHTTP(w, request(pattern+"?project="+project, nbd.Peer{UID: uid}, `{"name":"new","size":1048576,"key":"mine"}`, newRequest()))
	if w.Code < 300 {
		return refusal.OK, ""
	}
	return codeIn(w.Body.String()), w.Body.String()
}

// Every route asks, of everybody: each role, each grant of the key, and nobody, in the project default and in another; the audit names each of them.
func TestRuleC17_EveryRoleAtEveryRoute(t *testing.T) {
	d := startShop(t)
	for _, r := range routes {
		d.pace = newPace() // it is many calls
		letters, known := mayAsk[r.pattern]
		if !known {
			t.Errorf("%s: say in this test who may ask it", r.pattern)
			continue
		}
		store := strings.Contains(letters, "!")
		for _, project := range []string{"default", "shop"} {
			for letter, n := range played {
				for home, first := range map[string]uint32{"default": inDefault, "shop": inShop} {
					at := project
					if store {
						at = "default"
					}
					want := home == at && strings.Contains(letters, letter)
					if strings.Contains(letters, "N") && (at == "default" || home == at && n <= 3) {
						want = true
					}
					// Which projects there are is for auditors and administrators of the project default.
					if r.pattern == control.RouteProjectShow && home == "default" && (letter == "A" || letter == "R") {
						want = true
					}
					d.played(t, r, first+n, project, want)
				}
			}
			d.played(t, r, newcomer, project, strings.Contains(letters, "N") && (project == "default" || store))
			d.played(t, r, 0, project, true)
		}
	}
}

// played makes a call and holds the answer, and the audit record of it, against what should be.
func (d *Daemon) played(t *testing.T, r route, uid uint32, project string, want bool) {
	t.Helper()
	before := d.log.Head().Seq
	code, body := askIdle(t, d, r, uid, project)
	if (code == refusal.OK) != want || code != refusal.OK && code != refusal.Denied {
		t.Errorf("%s by %d in project %s: %d %s, want it allowed: %v", r.pattern, uid, project, code, body, want)
	}
	if !want && !strings.Contains(body, "can give") {
		t.Errorf("%s by %d: %s does not say who can give the right", r.pattern, uid, body)
	}
	if r.verb == "" || want && r.is(quiet) {
		return
	}
	rec := lastRecord(t, d)
	outcome := map[bool]string{true: audit.OK, false: audit.Refused}[want]
	if rec.Seq != before+1 || rec.UID != uid || rec.Verb != r.verb || rec.Project != project || rec.Outcome != outcome {
		t.Errorf("%s by %d in project %s is in the audit as %+v", r.pattern, uid, project, rec)
	}
}

func lastRecord(t *testing.T, d *Daemon) (rec audit.Record) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(d.o.State, keystore.AuditFile))
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	if err := json.Unmarshal(lines[len(lines)-1], &rec); err != nil {
		t.Fatal(err)
	}
	return rec
}

// Rules A37 to A42: the administrator grants, and nobody else; who comes first is told whom to ask; one grant is for all users, for ever, and for that project.
func TestRuleA37_A38_A39_A40_A41_TheGrant(t *testing.T) {
	o := options(t)
	d := newDaemon(o)
	if err := d.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	must(t, d, control.RouteProjectCreate, `{"name":"shop"}`)
	const alice, bob, carol = "3001", 3002, 3003
	for _, project := range []string{"default", "shop"} {
		must(t, d, control.RouteRoleGrant+"?project="+project, `{"user":"`+alice+`","role":"security-admin"}`)
		for _, u := range []int{bob, carol} {
			must(t, d, control.RouteRoleGrant+"?project="+project, fmt.Sprintf(`{"user":"%d","role":"user"}`, u))
		}
	}
	disk := func(name string) string { return `{"name":"` + name + `","size":1048576,"encrypted":true}` }
	for _, want := range []string{"not granted", "root", alice, "grant create"} {
		if answer := by(t, d, bob, control.RouteDiskCreate, disk("a"), refusal.Denied); !strings.Contains(answer, want) {
			t.Errorf("%s does not say %q", answer, want)
		}
	}
	by(t, d, bob, control.RouteGrantCreate, "", refusal.Denied)
	by(t, d, 3001, control.RouteGrantCreate, "", refusal.OK)
	by(t, d, bob, control.RouteDiskCreate, disk("a"), refusal.OK)
	by(t, d, carol, control.RouteDiskCreate, disk("b"), refusal.OK) // who was never granted anything
	by(t, d, bob, control.RouteDiskCreate+"?project=shop", disk("a"), refusal.Denied)
	d.close()
	d = newDaemon(o)
	t.Cleanup(d.close)
	if err := d.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	by(t, d, bob, control.RouteDiskCreate, disk("c"), refusal.OK)
	by(t, d, bob, control.RouteDiskCreate+"?project=shop", disk("a"), refusal.Denied)
}

func TestRuleA42_OtherRegionsAreUnaffected(t *testing.T) {
	o := options(t)
	o.Region = "east"
	east := newDaemon(o)
	if err := east.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	must(t, east, control.RouteGrantCreate, "")
	must(t, east, control.RouteDiskCreate, `{"name":"a","size":1048576,"encrypted":true}`)
	east.close()
	o.Region = "west"
	d := newDaemon(o)
	t.Cleanup(d.close)
	if err := d.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	by(t, d, 0, control.RouteDiskCreate, `{"name":"b","size":1048576,"encrypted":true}`, refusal.Denied)
}

// What a grant was looked for is what a call goes on with, whatever its name stands for by then.
func TestGrantIsForWhatItWasLookedFor(t *testing.T) {
	d := startShop(t)
	c := &call{ctx: t.Context(), http: request("POST /v1/disks/vault/attach", nbd.Peer{}, "{}", "r"), caller: d.callerOf(inDefault + 4),
		request: newRequest(), project: "default"}
	c.http.SetPathValue("disk", "vault")
	attach := route{pattern: control.RouteAttach, action: access.DiskAttach, how: changes}
	if err := d.mayAsk(attach, c); err != nil {
		t.Fatal(err)
	}
	disk := read[control.Disk](t, must(t, d, "GET /v1/disks/vault", ""))
	if c.disk() != disk.ID || c.onlyKey != disk.Key.ID {
		t.Errorf("it goes on with disk %s and key %s", c.disk(), c.onlyKey)
	}
	must(t, d, "POST /v1/disks/vault/rewrap", `{"key":"other"}`)
	if _, err := d.attachCall(c); refusal.CodeOf(err) != refusal.Denied {
		t.Errorf("a disk that was put under another key meanwhile: %v", err)
	}
}
