package daemon

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"nbdcrypt/nbd"
	"nbdcrypt/pkg/audit"
	"nbdcrypt/pkg/clock"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

// walker makes calls, and wants exactly one record of each, that says what the answer said.
type walker struct {
	t       *testing.T
	d       *Daemon
	well    map[string]bool
	refused map[string]bool
}

func routeOf(pattern string) route {
	for _, r := range routes {
		if r.pattern == pattern {
			return r
		}
	}
	panic("no route " + pattern)
}

// ask makes a call about a thing, and returns the body of its answer.
func (w *walker) ask(pattern, name, query, body string, peer nbd.Peer) string {
	w.t.Helper()
	r, id := routeOf(pattern), newRequest()
	path := pattern
	if before, after, found := strings.Cut(path, "{"); found {
		_, after, _ = strings.Cut(after, "}")
		path = before + name + after
	}
	status, answer := w.d.callAs(w.t, path+query, peer, body, id)
	outcome, code := audit.OK, codeIn(answer)
	if status == http.StatusAccepted {
		if job := w.d.awaitJob(w.t, answer); job.Error != nil {
			code = refusal.Code(job.Error.Code)
		}
	}
	if code != refusal.OK {
		outcome = audit.Refused
	}
	if outcome == audit.OK {
		w.well[pattern] = true
	} else {
		w.refused[pattern] = true
	}
	if r.verb == "" || r.is(quiet) && outcome == audit.OK {
		w.want(path, id, nil)
		return answer
	}
	project := "default"
	if strings.Contains(pattern, "{project}") {
		project = name
	}
	w.want(path, id, func(rec audit.Record) bool {
		return rec.UID == peer.UID && rec.User == w.d.callerOf(peer.UID).User && rec.Verb == r.verb && rec.Project == project &&
			rec.Outcome == outcome && rec.Code == int(code) && (rec.Message == "") == (outcome == audit.OK) && !rec.Time.IsZero() &&
			(name == "" || strings.Contains(rec.Resource, name) || rec.Key != "") && (outcome == audit.Refused || !strings.HasPrefix(r.verb, "key ") || rec.KeyID != "" || pattern == control.RouteKeyList)
	})
	return answer
}

// want wants one record of a request, or none.
func (w *walker) want(what, request string, is func(audit.Record) bool) {
	w.t.Helper()
	var found []audit.Record
	for _, rec := range w.d.records(w.t) {
		if rec.Request == request && rec.Verb != "attest" && !strings.Contains(rec.Verb, ".") { // the search after a detach is the daemon's own, as is what has a dot
			found = append(found, rec)
		}
	}
	if is == nil && len(found) > 0 || is != nil && (len(found) != 1 || !is(found[0])) {
		w.t.Errorf("%s leaves %+v", what, found)
	}
}

// Rule B16: every verb leaves one audit record, failed ones too: who, what, which resource, how it ended, and of a key's verb which key.
func TestRuleB16_EveryVerbLeavesOneRecord(t *testing.T) {
	o, now := options(t), clock.NewFake(time.Unix(2e9, 0))
	o.Clock = now
	d := startWith(t, o)
	w := &walker{t, d, map[string]bool{}, map[string]bool{}}
	root := nbd.Peer{}
	// The walker has no connection that a secret could go over, so the slots that it makes go again.
	if _, secret, err := d.root.AddCredential(t.Context(), "kept", "kept", nil); err != nil {
		t.Fatal(err)
	} else {
		secret.Destroy()
	}
	for _, c := range []struct{ route, name, query, body string }{
		{control.RouteStatus, "", "", ""}, {control.RouteMetrics, "", "", ""}, {control.RouteGrantCreate, "", "", ""}, {control.RouteGrantList, "", "", ""},
		{control.RouteKeyCreate, "", "", `{"alias":"mine"}`}, {control.RouteKeyCreate, "", "", `{"alias":"mine"}`}, {control.RouteKeyList, "", "", ""},
		{control.RouteKeyShow, "mine", "", ""}, {control.RouteKeyDisable, "mine", "", ""}, {control.RouteKeyEnable, "mine", "", ""},
		{control.RouteKeyUpdate, "mine", "", `{"alias":"ours"}`}, {control.RouteKeyUses, "ours", "", ""}, {control.RouteKeyPredict, "ours", "?verb=disable", ""},
		{control.RouteKeyRotate, "ours", "", ""}, {control.RouteKeyRotation, "ours", "", `{"days":30}`}, {control.RouteKeySchedule, "ours", "", `{"days":7}`},
		{control.RouteKeySchedule, "ours", "?yes=true", `{"days":7}`}, {control.RouteKeyDelete, "ours", "?yes=true", ""}, {control.RouteKeyCancel, "ours", "", `{"enable":true}`},
		{control.RouteKeyGrant, "ours", "", `{"user":"1234","operation":"decrypt"}`}, {control.RouteKeyGrants, "ours", "", ""},
		{control.RouteDiskCreate, "", "", `{"name":"vault","size":1048576,"key":"ours"}`}, {control.RouteDiskList, "", "", ""}, {control.RouteDiskShow, "vault", "", ""},
		{control.RouteDiskExtend, "vault", "", `{"size":2097152}`}, {control.RouteDiskRewrap, "vault", "", `{"key":"ours"}`}, {control.RouteKeyRewrap, "ours", "", "{}"},
		{control.RouteDiskEscrow, "vault", "?yes=true", ""}, {control.RouteDiskExport, "vault", "?yes=true", ""}, {control.RouteAttach, "vault", "", "{}"}, {control.RouteAttach, "vault", "", "{}"},
		{control.RouteDetach, "vault", "", ""}, {control.RouteDetach, "vault", "", ""}, {control.RouteCheck, "", "", `{"disk":"vault"}`}, {control.RouteCheck, "", "", `{"disk":"none"}`},
		{control.RouteSnapshotCreate, "", "", `{"name":"before","disk":"vault"}`}, {control.RouteSnapshotList, "", "", ""}, {control.RouteSnapshotList, "", "?disk=none", ""},
		{control.RouteSnapshotShow, "before", "", ""}, {control.RouteDiskRollback, "vault", "", `{"snapshot":"before"}`}, {control.RouteDiskRollback, "vault", "?yes=true", `{"snapshot":"before"}`},
		{control.RouteDiskRekey, "vault", "", ""}, {control.RouteSnapshotDelete, "before", "", ""}, {control.RouteSnapshotDelete, "before", "?yes=true", ""},
		{control.RouteImageCreate, "", "", `{"name":"golden","disk":"vault"}`}, {control.RouteImageUpload, "", "?name=sent&size=512", uploaded(t, 512)}, {control.RouteImageList, "", "", ""},
		{control.RouteImageShow, "golden", "", ""}, {control.RouteImageCopy, "golden", "", `{"name":"bare","encrypted":false}`},
		{control.RouteImageDelete, "golden", "", ""}, {control.RouteImageDelete, "golden", "?yes=true", ""},
		{control.RouteImageCreate, "", "", `{"name":"base","disk":"vault"}`}, {control.RouteServerCreate, "", "", `{"name":"web","image":"base","data":[{"size":1048576}]}`},
		{control.RouteServerCreate, "", "", `{"name":"web","image":"none"}`}, {control.RouteServerList, "", "", ""}, {control.RouteServerShow, "web", "", ""},
		{control.RouteServerRun, "web", "", `{"token":"0123456789abcdef0123456789abcdef"}`}, {control.RouteServerStop, "web", "", "{}"},
		{control.RouteServerDetach, "web", "", `{"disk":"web-data-1"}`}, {control.RouteServerAttach, "web", "", `{"disk":"web-data-1"}`}, {control.RouteServerAttach, "web", "", `{"disk":"none"}`},
		{control.RouteImageCreate, "", "", `{"name":"of-web","server":"web"}`}, {control.RouteConfigCreate, "", "", `{"name":"small","server":"web"}`}, {control.RouteConfigList, "", "", ""},
		{control.RouteConfigShow, "small", "", ""}, {control.RouteGroupCreate, "", "", `{"name":"many","config":"small","min":1,"max":3}`}, {control.RouteGroupList, "", "", ""},
		{control.RouteGroupShow, "many", "", ""}, {control.RouteGroupScale, "many", "", `{"size":2}`}, {control.RouteGroupScale, "many", "", `{"size":1}`}, {control.RouteGroupScale, "many", "?yes=true", `{"size":1}`},
		{control.RouteConfigDelete, "small", "?yes=true", ""}, {control.RouteGroupDelete, "many", "", ""}, {control.RouteGroupDelete, "many", "?yes=true", ""},
		{control.RouteConfigDelete, "small", "", ""}, {control.RouteConfigDelete, "small", "?yes=true", ""},
		{control.RouteServerDelete, "web", "", ""}, {control.RouteServerDelete, "web", "?yes=true", ""}, {control.RouteImageDelete, "base", "?yes=true", ""}, {control.RouteImageDelete, "of-web", "?yes=true", ""},
		{control.RouteBackupCreate, "", "", `{"name":"monday","disk":"vault"}`}, {control.RouteBackupList, "", "", ""}, {control.RouteBackupShow, "monday", "", ""},
		{control.RouteBackupList, "", "?disk=none", ""}, {control.RouteBackupVerify, "monday", "", ""}, {control.RouteBackupKey, "", "", ""},
		{control.RouteBackupExport, "monday", "?from=x", ""}, {control.RouteBackupPrune, "", "", `{"disk":"vault","keep":0}`}, {control.RouteBackupPrune, "", "", `{"disk":"vault","keep":1}`},
		{control.RouteDiskCreate, "", "", `{"name":"again","from_backup":"monday"}`}, {control.RouteDiskDelete, "again", "?yes=true", ""},
		{control.RouteDiskDelete, "vault", "", ""}, {control.RouteDiskDelete, "vault", "?yes=true", ""},
		{control.RouteRoleGrant, "", "", `{"user":"1234","role":"user"}`}, {control.RouteRoleList, "", "", ""}, {control.RouteRoleRevoke, "", "", `{"user":"1234","role":"user"}`},
		{control.RouteProjectCreate, "", "", `{"name":"shop"}`}, {control.RouteProjectList, "", "", ""}, {control.RouteProjectShow, "shop", "", ""},
		{control.RouteProjectSet, "shop", "", `{"encrypt_by_default":true}`}, {control.RouteProjectDelete, "shop", "?yes=true", ""},
		{control.RouteClockShow, "", "", ""}, {control.RouteClockAccept, "", "", ""}, {control.RouteJobList, "", "", ""}, {control.RouteJobShow, "none", "", ""},
		{control.RouteAuditList, "", "", ""}, {control.RouteAuditList, "", "?limit=x", ""}, {control.RouteAuditHead, "", "", ""}, {control.RouteAuditVerify, "", "", "{}"},
		{control.RouteAuditVerify, "", "", `{"heads":[{"seq":1,"hash":"00"}]}`},
		{control.RouteRecoveryCreate, "", "", `{"name":"kit","shares":1,"threshold":1}`}, {control.RouteSlotCredential, "", "", `{"name":"systemd"}`},
		{control.RouteSlotList, "", "", ""}, {control.RouteSlotRemove, "kept", "?yes=true", ""}, {control.RouteRootLock, "", "", ""}, {control.RouteRootUnlock, "", "", ""},
		{control.RouteRootPassphrase, "", "", ""}, {control.RouteRecoveryOpen, "", "", ""}, {control.RouteGrantRevoke, "", "?yes=true", ""}, {control.RouteGrantRevoke, "", "", ""},
	} {
		w.ask(c.route, c.name, c.query, c.body, root)
	}
	w.backups()
	w.imports()
	w.ends(now)
	for _, r := range routes {
		name := ""
		if strings.Contains(r.pattern, "{") {
			name = "nothing"
		}
		w.ask(r.pattern, name, "", "{}", nbd.Peer{UID: 65534})
		w.ask(r.pattern, name, "", "{}", root)
	}
	// What takes hardware, systemd, a runner, or a connection that a passphrase follows has its record shown elsewhere.
	elsewhere := map[string]bool{control.RouteServerStop: true, control.RouteSlotAdd: true, control.RouteSlotKeyFile: true, control.RouteSlotTPM: true, control.RouteSlotToken: true, control.RouteSlotGive: true,
		control.RouteSlotReseal: true, control.RouteRecoveryVerify: true, control.RouteJobShow: true}
	everybodys := map[string]bool{control.RouteStatus: true, control.RouteProjectList: true}
	for _, r := range routes {
		if !w.well[r.pattern] && !elsewhere[r.pattern] {
			t.Errorf("%s never went well", r.pattern)
		}
		if !w.refused[r.pattern] && !everybodys[r.pattern] {
			t.Errorf("%s was never refused", r.pattern)
		}
	}
}

// Rule B16: which thing a call was about is in the record also where rights forbid it, and its body names the thing.
func TestRuleB16_RefusedCallsNameWhat(t *testing.T) {
	d := start(t)
	for _, c := range []struct{ route, body, want string }{
		{control.RouteRoleGrant, `{"user":"1234","role":"security-admin"}`, "1234 security-admin"},
		{control.RouteRoleRevoke, `{"user":"root","role":"user"}`, "root user"},
		{control.RouteProjectCreate, `{"name":"shop"}`, "shop"},
		{control.RouteCheck, `{"disk":"vault"}`, "vault"},
		{control.RouteDiskCreate, `{"size":1048576,"name":"vault"}`, "vault"},
		{control.RouteSnapshotCreate, `{"name":"before","disk":"vault"}`, "before vault"}, {"POST /v1/disks/vault/rollback", `{"snapshot":"before"}`, "vault before"},
		{control.RouteDiskCreate, `{"name":"twin","from_snapshot":"before"}`, "twin before"},
		{control.RouteDiskCreate, `{"name":"twin","from_image":"golden"}`, "twin golden"},
		{control.RouteDiskCreate, `{"name":"twin","from_backup":"monday"}`, "twin monday"},
		{control.RouteImageCreate, `{"name":"golden","server":"web"}`, "golden web"}, {control.RouteServerCreate, `{"name":"web","image":"golden"}`, "web golden"},
		{control.RouteConfigCreate, `{"name":"small","server":"web"}`, "small web"}, {control.RouteGroupCreate, `{"name":"many","config":"small"}`, "many small"},
		{"POST /v1/servers/web/disks", `{"disk":"data"}`, "web data"}, {"POST /v1/servers/web/run", `{"token":"secret"}`, "web"},
		{control.RouteImageCreate, `{"name":"golden","disk":"vault"}`, "golden vault"}, {control.RouteImageUpload + "?name=sent", "", "sent"},
		{"POST /v1/images/golden/copy", `{"name":"bare"}`, "golden bare"},
		{"POST /v1/keys/mine/grants", `{"user":"1234","operation":"decrypt"}`, "mine 1234 decrypt"},
		{"POST /v1/keys/mine/grants/revoke", `{"grant":"some-id"}`, "mine some-id"},
	} {
		d.call(t, c.route, nbd.Peer{UID: 65534}, c.body)
		all := d.records(t)
		if rec := all[len(all)-1]; rec.UID != 65534 || rec.Outcome != audit.Refused || rec.Code != int(refusal.Denied) || rec.Resource != c.want {
			t.Errorf("%s %s leaves %+v", c.route, c.body, rec)
		}
	}
}

// imports goes through the life of imported material.
func (w *walker) imports() {
	w.t.Helper()
	root := nbd.Peer{}
	w.ask(control.RouteGrantCreate, "", "", "", root)
	w.ask(control.RouteKeyCreate, "", "", `{"alias":"theirs","origin":"imported"}`, root)
	var p control.ImportParameters
	if err := json.Unmarshal([]byte(w.ask(control.RouteKeyPrepare, "theirs", "", "", root)), &p); err != nil {
		w.t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(p.WrappingKey))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		w.t.Fatal(err)
	}
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public.(*rsa.PublicKey), bytes.Repeat([]byte{7}, 32), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	body, err := json.Marshal(control.KeyImport{Token: p.Token, Material: wrapped})
	if err != nil {
		w.t.Fatal(err)
	}
	w.ask(control.RouteKeyImport, "theirs", "", string(body), root)
	w.ask(control.RouteKeyDeleteMaterial, "theirs", "?yes=true", "", root)
}

// ends goes through what takes the id of something that a call before it made.
func (w *walker) ends(now *clock.Fake) {
	w.t.Helper()
	root, grantee := nbd.Peer{}, nbd.Peer{UID: 1234}
	for _, end := range []struct {
		route string
		by    nbd.Peer
	}{{control.RouteKeyGrantRevoke, root}, {control.RouteKeyGrantRetire, grantee}} {
		var g control.KeyGrant
		if err := json.Unmarshal([]byte(w.ask(control.RouteKeyGrant, "theirs", "", `{"user":"1234","operation":"describe"}`, root)), &g); err != nil {
			w.t.Fatal(err)
		}
		w.ask(end.route, "theirs", "", `{"grant":"`+g.ID+`"}`, end.by)
	}
	var job control.Job
	if err := json.Unmarshal([]byte(w.ask(control.RouteAuditVerify, "", "", "{}", root)), &job); err != nil {
		w.t.Fatal(err)
	}
	w.ask(control.RouteJobCancel, job.ID, "", "", root)
	// A clock that is far ahead destroys nothing by itself, so that a person can.
	w.ask(control.RouteKeySchedule, "ours", "?yes=true", `{"days":7}`, root)
	now.Advance(60 * 24 * time.Hour)
	w.ask(control.RouteKeyDelete, "ours", "?yes=true", "", root)
}

// What the daemon does on its own is in the log in the name of its user, with the key that it is about.
func TestRuleB16_DaemonsOwnDeeds(t *testing.T) {
	d := start(t)
	d.recordOwn("key.rotated", "shop", "some-id", nil)
	d.recordOwn("key.deleted", "shop", "some-id", refusal.New(refusal.Damaged, "h", "it can't"))
	d.recordOwn("slot.opened", "", "systemd", nil)
	list := d.records(t)
	list = list[len(list)-3:]
	for i, want := range []audit.Record{
		{Verb: "key.rotated", Project: "shop", Resource: "some-id", KeyID: "some-id", Outcome: "ok"},
		{Verb: "key.deleted", Project: "shop", Resource: "some-id", KeyID: "some-id", Outcome: "refused", Code: 8, Message: "it can't"},
		{Verb: "slot.opened", Resource: "systemd", Outcome: "ok"},
	} {
		got := list[i]
		if got.UID != d.self.UID || got.User != d.self.User || got.Request == "" {
			t.Errorf("by %d %s, request %q", got.UID, got.User, got.Request)
		}
		want.Seq, want.Time, want.Request, want.UID, want.User, want.PID, want.Catalog, want.Prev, want.Hash =
			got.Seq, got.Time, got.Request, got.UID, got.User, got.PID, got.Catalog, got.Prev, got.Hash
		if got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}

// A log that can't be written: no key is released, attached disks go on and can be detached, what nobody can undo waits, and what was
// missed is counted.
func TestRuleA12_NoRecordNoKey(t *testing.T) {
	d := start(t)
	for _, c := range []struct{ route, name, body string }{
		{control.RouteKeyCreate, "", `{"alias":"mine"}`}, {control.RouteDiskCreate, "", `{"name":"vault","size":1048576,"key":"mine"}`},
		{control.RouteDiskCreate, "", `{"name":"other","size":1048576,"key":"mine"}`}, {control.RouteAttach, "vault", "{}"},
	} {
		mustAsk[any](t, d, c.route, c.name, c.body)
	}
	deks := func() (n int) {
		_, keys := secret.Snapshot()
		for _, k := range keys {
			if k.Kind == "dek" {
				n++
			}
		}
		return n
	}
	before := deks()
	if err := d.log.Close(); err != nil { // from now on every write to it fails
		t.Fatal(err)
	}
	for _, pattern := range []string{"POST /v1/disks/other/attach", "POST /v1/disks/other/escrow?yes=true", "POST /v1/disks/vault/escrow?yes=true", "POST /v1/disks/other/export?yes=true"} {
		status, body := d.call(t, pattern, nbd.Peer{}, "{}")
		var e control.ErrorBody
		if err := json.Unmarshal([]byte(body), &e); err != nil || e.Error == nil {
			t.Errorf("%s answers %d %s", pattern, status, body)
			continue
		}
		if e.Error.Code != 1 || !strings.Contains(e.Error.Message, "could not be recorded") || !strings.Contains(e.Error.Hint, "no key is released") {
			t.Errorf("%s: %+v", pattern, e.Error)
		}
	}
	if n := deks(); n != before {
		t.Errorf("%d data keys are in memory, %d were before", n, before)
	}
	if list := d.attachments(); len(list) != 1 || list[0].Name != "vault" {
		t.Errorf("%d disks are attached", len(list))
	}
	if err := d.canRecord(); err == nil || refusal.From(err).Hint == "" {
		t.Errorf("what can't be undone: %v", err)
	}
	if _, err := d.attachments()[0].Device.WriteAt([]byte("goes on"), 512); err != nil {
		t.Errorf("I/O of an attached disk: %v", err)
	}
	if status, body := d.call(t, "POST /v1/disks/vault/detach", nbd.Peer{}, ""); status != http.StatusOK {
		t.Errorf("detach: %d %s", status, body)
	}
	if d.auditFailures.Load() < 5 {
		t.Errorf("%d failures are counted", d.auditFailures.Load())
	}
	warned := false
	for _, text := range d.allWarnings() {
		warned = warned || strings.Contains(text, "the audit log could not be written")
	}
	if !warned {
		t.Error("status does not warn of it")
	}
}

// Who may read the log: an auditor and a security administrator, of a project its records, of default all.
func TestRuleC17_WhoSeesWhichRecords(t *testing.T) {
	d := start(t)
	mustAsk[any](t, d, control.RouteProjectCreate, "", `{"name":"shop"}`)
	for _, c := range []struct{ project, body string }{
		{"default", `{"user":"1001","role":"auditor"}`}, {"default", `{"user":"1002","role":"security-admin"}`}, {"default", `{"user":"1003","role":"user"}`},
		{"shop", `{"user":"1004","role":"auditor"}`},
	} {
		if status, body := d.call(t, control.RouteRoleGrant+"?project="+c.project, nbd.Peer{}, c.body); status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
	}
	d.call(t, control.RouteKeyList+"?project=shop", nbd.Peer{}, "")
	list := func(uid uint32, query string) (projects map[string]int, status int) {
		t.Helper()
		status, body := d.call(t, control.RouteAuditList+query, nbd.Peer{UID: uid}, "")
		projects = map[string]int{}
		for line := range strings.Lines(body) {
			var rec control.AuditRecord
			if status == http.StatusOK && json.Unmarshal([]byte(line), &rec) != nil {
				t.Fatalf("%q", line)
			}
			projects[rec.Project]++
		}
		return projects, status
	}
	for _, c := range []struct {
		uid    uint32
		query  string
		status int
		all    bool
	}{
		{1001, "", 200, true}, {1002, "", 200, true}, {1003, "", 403, false}, {1004, "", 403, false}, {65534, "", 403, false},
		{1004, "?project=shop", 200, false}, {1003, "?project=shop", 403, false}, {65534, "?project=none", 403, false},
	} {
		got, status := list(c.uid, c.query)
		if status != c.status {
			t.Errorf("%d asking %q gets %d", c.uid, c.query, status)
			continue
		}
		if status == 200 && (got["shop"] == 0 || c.all != (got["default"] > 0) || c.all != (got[""] > 0)) {
			t.Errorf("%d asking %q sees %v", c.uid, c.query, got)
		}
	}
	for _, pattern := range []string{control.RouteAuditHead, control.RouteAuditVerify} {
		for uid, want := range map[uint32]bool{1001: true, 1002: true, 1003: false, 1004: false} {
			if status, body := d.call(t, pattern, nbd.Peer{UID: uid}, "{}"); (status < 300) != want {
				t.Errorf("%s by %d: %d %s", pattern, uid, status, body)
			}
		}
	}
}

// The log over the real socket: a head that is kept, a follower that hears what is done, and verifying.
func TestAuditOverTheSocket(t *testing.T) {
	o := options(t)
	stop := run(t, o)
	c := client(o)
	head, err := c.AuditHead(t.Context())
	if err != nil || head.Seq == 0 {
		t.Fatalf("%+v, %v", head, err)
	}
	ctx, leave := context.WithCancel(t.Context())
	heard, ended := make(chan control.AuditRecord, 16), make(chan error, 1)
	go func() {
		ended <- c.AuditList(ctx, control.AuditFilter{Follow: true, Verb: "key"}, func(r control.AuditRecord) error { heard <- r; return nil })
	}()
	if _, err := c.GrantCreate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.KeyCreate(t.Context(), control.KeyCreate{Alias: "mine"}); err != nil {
		t.Fatal(err)
	}
	select {
	case r := <-heard:
		if r.Verb != "key create" || r.Resource != "mine" || r.KeyID == "" {
			t.Errorf("it hears %+v", r)
		}
	case <-time.After(time.Minute):
		t.Fatal("a follower hears nothing")
	}
	leave()
	if err := <-ended; err != nil {
		t.Errorf("a follower who leaves: %v", err)
	}
	v, err := c.AuditVerify(t.Context(), []control.AuditMark{{Seq: head.Seq, Hash: head.Hash}})
	if err != nil || v.Records <= head.Seq || v.Heads != 1 || v.Head.Hash == head.Hash {
		t.Errorf("%+v, %v", v, err)
	}
	_, err = c.AuditVerify(t.Context(), []control.AuditMark{{Seq: head.Seq, Hash: strings.Repeat("0", 64)}})
	if refusal.CodeOf(err) != refusal.Damaged {
		t.Errorf("a head that the log does not have: %v", err)
	}
	// The end of the daemon is no end of the list.
	go func() {
		ended <- c.AuditList(t.Context(), control.AuditFilter{Follow: true}, func(r control.AuditRecord) error { heard <- r; return nil })
	}()
	<-heard
	go func() {
		for range heard {
		}
	}()
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if err := <-ended; refusal.CodeOf(err) != refusal.Unreachable {
		t.Errorf("a follower of a daemon that stops: %v", err)
	}
}

// Who follows the log and loses the right hears nothing of what comes later.
func TestFollowerWithoutARole(t *testing.T) {
	d := start(t)
	role := `{"user":"65534","role":"auditor"}`
	mustAsk[control.Role](t, d, control.RouteRoleGrant, "", role)
	body, err := d.auditList(&call{ctx: t.Context(), caller: d.callerOf(65534), project: "default",
		http: httptest.NewRequest("GET", "/v1/audit?follow=true", nil)})
	if err != nil {
		t.Fatal(err)
	}
	ended, out := make(chan error, 1), &bytes.Buffer{}
	go func() { ended <- body.(*recordStream).send(t.Context(), bufio.NewWriterSize(out, 1<<20)) }()
	d.call(t, control.RouteRoleRevoke, nbd.Peer{}, role)
	mustAsk[[]control.Key](t, d, control.RouteKeyList, "", "")
	select {
	case err := <-ended:
		if refusal.CodeOf(err) != refusal.Denied || strings.Contains(out.String(), "key list") {
			t.Errorf("it ends with %v after %s", err, out)
		}
	case <-time.After(10 * time.Second):
		t.Error("it goes on to hear")
	}
}

// What the catalog keeps of a failed sync is in the log too: a crash right after it must not look like a verb that was cut off.
func TestFailedSyncIsRecorded(t *testing.T) {
	d := start(t)
	mustAsk[control.Disk](t, d, control.RouteDiskCreate, "", `{"name":"vault","size":1048576}`)
	mustAsk[control.Attached](t, d, control.RouteAttach, "vault", "{}")
	d.syncFailed(d.attachments()[0], errors.New("input/output error"))
	if rec := lastRecord(t, d); rec.Verb != "disk.failed" || rec.Outcome != audit.Refused || rec.Resource != d.attachments()[0].Disk.String() || !strings.Contains(rec.Message, "input/output error") {
		t.Errorf("it is recorded as %+v", rec)
	}
}
