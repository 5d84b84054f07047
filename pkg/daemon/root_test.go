package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nbdcrypt/keystore"
	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdclient"
	"nbdcrypt/pkg/audit"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

const rightPassphrase = "correct horse"

// templateDir is removed when all tests are done.
var templateDir string

// template is a store that a key file and a passphrase open; making one takes argon2 twice.
var template = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "nbdc")
	if err != nil {
		return "", err
	}
	templateDir = dir
	o := optionsIn(dir)
	d := newDaemon(o)
	defer d.close()
	if err := d.open(context.Background()); err != nil {
		return "", err
	}
	passphrase, err := secret.Work(len(rightPassphrase), secret.Purpose{Kind: "passphrase", For: "a test"})
	if err != nil {
		return "", err
	}
	defer passphrase.Destroy()
	copy(passphrase.Bytes(), rightPassphrase)
	_, err = d.root.AddPassphrase(context.Background(), "alice", passphrase)
	return dir, err
})

// lockedStore is a copy of the template whose key file is away; restore puts it back.
func lockedStore(t *testing.T) (o Options, restore func()) {
	t.Helper()
	from, err := template()
	if err != nil {
		t.Fatal(err)
	}
	o = options(t)
	dir := filepath.Dir(o.State)
	if out, err := exec.Command("cp", "-a", from+"/.", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	away := o.RootKey + ".away"
	if err := os.Rename(o.RootKey, away); err != nil {
		t.Fatal(err)
	}
	return o, func() {
		if err := os.Rename(away, o.RootKey); err != nil {
			t.Fatal(err)
		}
	}
}

// startLocked opens a daemon on such a store, without its sockets.
func startLocked(t *testing.T) (d *Daemon, restore func()) {
	t.Helper()
	o, restore := lockedStore(t)
	d = newDaemon(o)
	t.Cleanup(d.close)
	t.Cleanup(func() { _ = d.jobs.Shutdown(context.Background()) })
	if err := d.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d, restore
}

func codeIn(body string) refusal.Code {
	var e control.ErrorBody
	if json.Unmarshal([]byte(body), &e) != nil || e.Error == nil {
		return refusal.OK
	}
	return refusal.Code(e.Error.Code)
}

// records are the lines of the audit log.
func (d *Daemon) records(t *testing.T) (list []audit.Record) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(d.o.State, keystore.AuditFile))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var rec audit.Record
		if err := json.Unmarshal(line, &rec); err != nil {
			t.Fatal(err)
		}
		list = append(list, rec)
	}
	return list
}

// Rule A4: a daemon that starts without the root key opens nothing. What it answers is the status and what leads to the root
// key, that only to those whose role is known without the catalog; every other route says what to do.
func TestRuleA4_NothingOpensWithoutTheRootKey(t *testing.T) {
	d, restore := startLocked(t)
	answered := map[string]int{
		control.RouteStatus: http.StatusOK, control.RouteMetrics: http.StatusOK, control.RouteSlotList: http.StatusOK, control.RouteRootLock: http.StatusOK,
		control.RouteRootUnlock: http.StatusServiceUnavailable, control.RouteRootPassphrase: http.StatusBadRequest,
		control.RouteRecoveryOpen: http.StatusBadRequest, control.RouteRecoveryVerify: http.StatusBadRequest,
	}
	for _, r := range routes {
		want, yes := answered[r.pattern]
		status, body := d.call(t, r.pattern, nbd.Peer{}, "{}")
		if yes && status != want || !yes && (codeIn(body) != refusal.Locked || !strings.Contains(body, "nbdcrypt root unlock")) {
			t.Errorf("%s answers %d %s", r.pattern, status, body)
		}
		status, body = d.call(t, r.pattern, nbd.Peer{UID: 65534}, "{}")
		switch {
		case r.pattern == control.RouteStatus:
			if status != http.StatusOK || !strings.Contains(body, `"locked":true`) || !strings.Contains(body, `"closed":true`) {
				t.Errorf("the status for a stranger: %d %s", status, body)
			}
		case yes && codeIn(body) != refusal.Denied, !yes && codeIn(body) != refusal.Locked:
			t.Errorf("%s answers a stranger with %d %s", r.pattern, status, body)
		}
	}
	if holds("root") || holds("catalog") {
		t.Error("keys are in memory")
	}
	if infos, err := d.exports.List(t.Context(), nbd.Peer{}); err != nil || len(infos) != 0 {
		t.Errorf("exports: %v, %v", infos, err)
	}
	if _, err := d.exports.Open(t.Context(), nbd.Peer{}, "vault"); err == nil {
		t.Error("an export opens")
	}
	if d.statusLine() == "" || d.since() == nil {
		t.Error("nothing says that it is locked")
	}

	before := len(d.records(t))
	restore()
	if status, body := d.call(t, control.RouteRootUnlock, nbd.Peer{}, ""); status != http.StatusOK || !strings.Contains(body, `"changed":true`) ||
		!strings.Contains(body, `"slot":{"id":"key-file"`) {
		t.Fatalf("unlock: %d %s", status, body)
	}
	if status, body := d.call(t, control.RouteDiskList, nbd.Peer{}, ""); status != http.StatusOK {
		t.Errorf("after the unlock: %d %s", status, body)
	}
	if d.statusLine() != "" || d.since() != nil {
		t.Error("it still says that it is locked")
	}
	// Rule B16: what was asked of the root key meanwhile is in the log, strangers' refusals too, and then the unlock. Of what found the door shut
	// there is as much as is kept, and how much is not.
	var verbs []string
	early, shut := 0, 0
	for _, rec := range d.records(t)[before:] {
		if rec.Verb == "daemon.locked" || rec.Code == int(refusal.Locked) && rec.Verb != "root unlock" {
			shut++
			continue
		}
		if strings.Contains(rec.Message, "before the log was open") {
			early++
		}
		verbs = append(verbs, fmt.Sprintf("%s %d by %d", rec.Verb, rec.Code, rec.UID))
	}
	want := "daemon.start 0 by 0, metrics 5 by 65534, root unlock 10 by 0, root unlock 5 by 65534, root unlock 2 by 0, root unlock 5 by 65534, " +
		"root lock 0 by 0, root lock 5 by 65534, root slot list 0 by 0, root slot list 5 by 65534, " +
		"root recovery open 2 by 0, root recovery open 5 by 65534, root recovery verify 2 by 0, root recovery verify 5 by 65534, root unlock 0 by 0, disk list 0 by 0"
	if got := strings.Join(verbs, ", "); got != want || early != 13 || shut != maxKeptShut+1 {
		t.Errorf("the log has, %d of it from before it was open,\n%s, want\n%s", early, got, want)
	}
}

// What is kept for the log is bounded, and the log says what is not in it.
func TestKeptRecordsAreBounded(t *testing.T) {
	d, restore := startLocked(t)
	for range maxKept + 7 {
		d.call(t, control.RouteRootUnlock, nbd.Peer{}, "")
	}
	restore()
	d.call(t, control.RouteRootUnlock, nbd.Peer{}, "")
	list := d.records(t)
	last := list[len(list)-2:]
	if last[0].Verb != "daemon.locked" || !strings.HasPrefix(last[0].Message, "7 further calls") || last[1].Verb != "root unlock" || last[1].Code != 0 {
		t.Errorf("the log ends with %+v", last)
	}
}

// Those who may ask nothing while the store is closed don't keep out of the log what the others did.
func TestStrangersDontFillTheKeptRecords(t *testing.T) {
	d, restore := startLocked(t)
	for range maxKept + 7 {
		d.call(t, control.RouteRootUnlock, nbd.Peer{UID: 65534}, "")
	}
	d.call(t, control.RouteRootUnlock, nbd.Peer{}, "")
	restore()
	d.call(t, control.RouteRootUnlock, nbd.Peer{}, "")
	list := d.records(t)
	last := list[len(list)-3:]
	if last[0].UID != 0 || last[0].Code != int(refusal.Locked) || last[1].Verb != "daemon.locked" || !strings.HasPrefix(last[1].Message, "57 further calls") {
		t.Errorf("the log ends with %+v", last)
	}
}

// The log names the slot that opened the root key.
func TestRuleB16_TheLogNamesTheSlot(t *testing.T) {
	o, _ := lockedStore(t)
	run(t, o)
	state, err := client(o).RootPassphrase(t.Context(), []byte(rightPassphrase))
	if err != nil {
		t.Fatal(err)
	}
	list := (&Daemon{o: o}).records(t)
	if last := list[len(list)-1]; last.Verb != "root unlock" || last.Resource != state.Slot.ID {
		t.Errorf("the log ends with %+v, the slot is %s", last, state.Slot.ID)
	}
}

// A root key file that is there and opens nothing is told, one that is away is not: it may be meant to be.
func TestStartWithADamagedKeyFile(t *testing.T) {
	d, _ := startLocked(t)
	if w := strings.Join(d.allWarnings(), "\n"); strings.Contains(w, "key-file") {
		t.Errorf("without a key file it warns %q", w)
	}
	o, _ := lockedStore(t)
	if err := os.WriteFile(o.RootKey, []byte("nbdcrypt-root-key 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d = newDaemon(o)
	t.Cleanup(d.close)
	if err := d.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w := strings.Join(d.allWarnings(), "\n"); !strings.Contains(w, o.RootKey+" is damaged") || !strings.Contains(w, "from its backup") {
		t.Errorf("with a damaged key file it warns %q", w)
	}
}

// Where the root key is in memory alone, the status says so: who stops the daemon then loses everything.
func TestStatusWarnsOfTheLastRootKey(t *testing.T) {
	d := start(t)
	warns := func(peer nbd.Peer) bool {
		_, body := d.call(t, control.RouteStatus, peer, "")
		return strings.Contains(body, "do not stop the daemon") && strings.Contains(body, "slot add passphrase")
	}
	if warns(nbd.Peer{}) {
		t.Error("it warns though the key file is there")
	}
	if err := os.Rename(d.o.RootKey, d.o.RootKey+".away"); err != nil {
		t.Fatal(err)
	}
	if !warns(nbd.Peer{}) || warns(nbd.Peer{UID: 65534}) {
		t.Error("it does not warn who may see it, or others too")
	}
}

// A slot is not removed while the root key is locked, and nobody is asked for a yes before.
func TestSlotRemoveWhileLocked(t *testing.T) {
	d, restore := startLocked(t)
	restore()
	for _, route := range []string{control.RouteRootUnlock, control.RouteRootLock} {
		if status, body := d.call(t, route, nbd.Peer{}, ""); status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
	}
	if _, body := d.call(t, strings.Replace(control.RouteSlotRemove, "{slot}", "alice", 1), nbd.Peer{}, ""); codeIn(body) != refusal.Locked {
		t.Error(body)
	}
}

// Unlocks that come together open the store once: one of them did it, and all are answered.
func TestUnlocksTogether(t *testing.T) {
	d, restore := startLocked(t)
	restore()
	var wg sync.WaitGroup
	var did atomic.Int32
	for range 16 {
		wg.Go(func() {
			status, body := d.call(t, control.RouteRootUnlock, nbd.Peer{}, "")
			if status != http.StatusOK {
				t.Errorf("%d %s", status, body)
			}
			if strings.Contains(body, `"changed":true`) {
				did.Add(1)
			}
		})
		wg.Go(func() { d.call(t, control.RouteStatus, nbd.Peer{}, "") })
		wg.Go(func() { d.call(t, control.RouteDiskList, nbd.Peer{}, "") })
	}
	wg.Wait()
	starts := 0
	for _, rec := range d.records(t) {
		if rec.Verb == "daemon.start" {
			starts++
		}
	}
	if did.Load() != 1 || starts != 2 { // the template's start is one
		t.Errorf("%d did it, %d starts are in the log", did.Load(), starts)
	}
}

// What can't be opened is told to who unlocks, leaves the store locked, and can be tried again.
func TestUnlockThatFailsCanBeRepeated(t *testing.T) {
	d, restore := startLocked(t)
	restore()
	log := filepath.Join(d.o.State, keystore.AuditFile)
	if err := os.Rename(log, log+".away"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		status, body := d.call(t, control.RouteRootUnlock, nbd.Peer{}, "")
		if codeIn(body) != refusal.Damaged || !strings.Contains(body, "the audit log is missing") {
			t.Errorf("%d %s", status, body)
		}
		if !d.root.Locked() || d.isOpen.Load() || d.since() == nil {
			t.Error("it is not locked as before")
		}
		if status, body := d.call(t, control.RouteDiskList, nbd.Peer{}, ""); codeIn(body) != refusal.Locked {
			t.Errorf("%d %s", status, body)
		}
	}
	if err := os.Rename(log+".away", log); err != nil {
		t.Fatal(err)
	}
	if status, body := d.call(t, control.RouteRootUnlock, nbd.Peer{}, ""); status != http.StatusOK {
		t.Errorf("%d %s", status, body)
	}
	if status, body := d.call(t, control.RouteDiskList, nbd.Peer{}, ""); status != http.StatusOK {
		t.Errorf("%d %s", status, body)
	}
}

// A passphrase opens a store that started locked, over the real sockets; a wrong one does not, and leaves nothing in memory.
func TestUnlockByPassphrase(t *testing.T) {
	o, _ := lockedStore(t)
	run(t, o)
	c := client(o)
	if _, err := c.RootPassphrase(t.Context(), []byte("wrong horse")); refusal.CodeOf(err) != refusal.Locked {
		t.Fatalf("a wrong passphrase: %v", err)
	}
	if _, err := c.DiskList(t.Context()); refusal.CodeOf(err) != refusal.Locked {
		t.Errorf("disks: %v", err)
	}
	if _, err := nbdclient.Dial(t.Context(), "nbd+unix:///vault?socket="+filepath.Join(o.Run, control.SocketNBD)); err == nil {
		t.Error("an export opens")
	}
	state, err := c.RootPassphrase(t.Context(), []byte(rightPassphrase))
	if err != nil || !state.Changed || state.Slot.Name != "alice" {
		t.Fatalf("%+v, %v", state, err)
	}
	if holds("passphrase") {
		t.Error("it is in memory still")
	}
	if state, err = c.RootPassphrase(t.Context(), []byte("wrong horse")); err != nil || state.Changed {
		t.Errorf("open already, and it answers %+v, %v", state, err)
	}
	if _, err := c.GrantCreate(t.Context()); err != nil { // it makes a key, under the root key
		t.Error(err)
	}
	// The only other way gone, the passphrase is not removed; locked with the key file gone, it opens again.
	if _, err := c.SlotRemove(t.Context(), "alice", true); refusal.CodeOf(err) != refusal.Busy {
		t.Errorf("the last slot: %v", err)
	}
	if state, err = c.RootLock(t.Context()); err != nil || !state.Changed || !state.Locked {
		t.Errorf("lock: %+v, %v", state, err)
	}
	if state, err = c.RootPassphrase(t.Context(), []byte(rightPassphrase)); err != nil || !state.Changed || state.Locked {
		t.Errorf("unlock: %+v, %v", state, err)
	}
}

// Root lock leaves attached disks alone: requests go on, a detach is durable, and unlocking lets the disk be attached again.
func TestLockLeavesAttachedDisksAlone(t *testing.T) {
	o := options(t)
	run(t, o)
	c := client(o)
	encrypted := true
	if _, err := c.GrantCreate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"vault", "other"} {
		if _, err := c.DiskCreate(t.Context(), control.DiskCreate{Name: name, Size: 1 << 20, Encrypted: &encrypted}); err != nil {
			t.Fatal(err)
		}
	}
	at, err := c.Attach(t.Context(), "vault", control.Attach{})
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nbdclient.Dial(t.Context(), at.URI)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Disconnect()
	var done, failed atomic.Int64
	stop, ended := make(chan struct{}), make(chan struct{})
	want := bytes.Repeat([]byte("kept "), 1000)
	go func() {
		defer close(ended)
		got := make([]byte, len(want))
		for {
			select {
			case <-stop:
				return
			default:
			}
			_, w := nc.WriteAt(want, 777)
			if _, r := nc.ReadAt(got, 777); w != nil || r != nil || !bytes.Equal(got, want) {
				failed.Add(1)
				return
			}
			done.Add(1)
		}
	}()
	more := func() {
		t.Helper()
		for from, end := done.Load(), time.Now().Add(time.Minute); done.Load() < from+100; time.Sleep(time.Millisecond) {
			if failed.Load() > 0 || time.Now().After(end) {
				t.Fatal("the requests do not go on")
			}
		}
	}
	more()
	state, err := c.RootLock(t.Context())
	if err != nil || !state.Locked || !state.Changed || state.Attached != 1 {
		t.Fatalf("%+v, %v", state, err)
	}
	more()
	if again, err := c.RootLock(t.Context()); err != nil || again.Changed {
		t.Errorf("locked already, and it answers %+v, %v", again, err)
	}
	if holds("root") {
		t.Error("the root key is in memory")
	}
	if _, err := c.Attach(t.Context(), "other", control.Attach{}); refusal.CodeOf(err) != refusal.Locked {
		t.Errorf("another disk: %v", err)
	}
	close(stop)
	<-ended
	if gone, err := c.Detach(t.Context(), "vault", false); err != nil || len(gone.Warnings) > 0 {
		t.Fatalf("detach: %+v, %v", gone, err)
	}
	if _, err := c.Attach(t.Context(), "vault", control.Attach{}); refusal.CodeOf(err) != refusal.Locked {
		t.Errorf("attach: %v", err)
	}
	if state, err = c.RootUnlock(t.Context()); err != nil || !state.Changed || state.Slot.ID != "key-file" {
		t.Fatalf("%+v, %v", state, err)
	}
	if at, err = c.Attach(t.Context(), "vault", control.Attach{}); err != nil || len(at.Warnings) > 0 {
		t.Fatalf("%+v, %v", at, err)
	}
	nc, err = nbdclient.Dial(t.Context(), at.URI)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Disconnect()
	got := make([]byte, len(want))
	if _, err := nc.ReadAt(got, 777); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v, equal %v", err, bytes.Equal(got, want))
	}
}

// What works while the root key is locked, and what exits 10, route by route.
func TestWhatWorksWhileLocked(t *testing.T) {
	d := start(t)
	for _, c := range []struct{ route, body string }{
		{control.RouteKeyCreate, `{"alias":"mine"}`}, {control.RouteDiskCreate, `{"name":"vault","size":1048576,"encrypted":true}`},
		{control.RouteDiskCreate, `{"name":"spare","size":1048576,"key":"mine"}`}, {"POST /v1/disks/vault/attach", "{}"}, {control.RouteRootLock, ""},
	} {
		if status, body := d.call(t, c.route, nbd.Peer{}, c.body); status != http.StatusOK {
			t.Fatalf("%s: %d %s", c.route, status, body)
		}
	}
	ok, locked := http.StatusOK, http.StatusServiceUnavailable
	walked := map[string]bool{}
	for _, c := range []struct {
		route, name, query, body string
		want                     int
	}{
		{control.RouteStatus, "", "?keys=true", "", ok}, {control.RouteMetrics, "", "", "", ok}, {control.RouteGrantList, "", "", "", ok}, {control.RouteGrantCreate, "", "", "", ok},
		{control.RouteKeyList, "", "", "", ok}, {control.RouteKeyShow, "mine", "", "", ok}, {control.RouteKeyCreate, "", "", `{"alias":"new"}`, locked},
		{control.RouteKeyDisable, "mine", "", "", ok}, {control.RouteKeyEnable, "mine", "", "", ok},
		{control.RouteKeyUpdate, "mine", "", `{"tags":{"a":"b"}}`, ok}, {control.RouteKeyUses, "mine", "", "", ok},
		{control.RouteKeyPredict, "mine", "?verb=disable", "", ok}, {control.RouteKeySchedule, "mine", "?yes=true", `{"days":7}`, ok},
		{control.RouteKeyDelete, "mine", "?yes=true", "", http.StatusLocked}, {control.RouteKeyCancel, "mine", "", `{"enable":true}`, ok},
		{control.RouteClockShow, "", "", "", ok}, {control.RouteClockAccept, "", "", "", ok},
		{control.RouteKeyRotate, "mine", "", "", locked}, {control.RouteKeyRotation, "mine", "", `{"days":30}`, ok},
		{control.RouteKeyRewrap, "mine", "", "{}", http.StatusAccepted}, {control.RouteKeyPrepare, "mine", "", "", http.StatusLocked},
		{control.RouteKeyImport, "mine", "", "{}", http.StatusLocked}, {control.RouteKeyDeleteMaterial, "mine", "?yes=true", "", http.StatusLocked},
		{control.RouteDiskRewrap, "vault", "", `{"key":"mine"}`, locked}, {control.RouteDiskExport, "spare", "?yes=true", "", locked},
		{control.RouteDiskList, "", "", "", ok}, {control.RouteDiskShow, "vault", "", "", ok}, {control.RouteDiskExtend, "spare", "", `{"size":2097152}`, ok},
		{control.RouteDiskCreate, "", "", `{"name":"new","size":1048576,"encrypted":true}`, locked},
		{control.RouteDiskCreate, "", "", `{"name":"plain","size":1048576}`, ok},
		{control.RouteDiskEscrow, "vault", "?yes=true", "", locked}, {control.RouteAttach, "spare", "", "{}", locked},
		{control.RouteAttach, "plain", "", "{}", ok}, {control.RouteDetach, "plain", "", "{}", ok}, {control.RouteDetach, "vault", "", "", ok},
		{control.RouteAttach, "vault", "", "{}", locked}, {control.RouteDiskDelete, "spare", "?yes=true", "", http.StatusNoContent},
		{control.RouteSnapshotCreate, "", "", `{"name":"after","disk":"vault"}`, locked}, {control.RouteSnapshotCreate, "", "", `{"name":"before","disk":"plain"}`, ok},
		{control.RouteSnapshotList, "", "", "", ok}, {control.RouteSnapshotShow, "before", "", "", ok}, {control.RouteDiskRollback, "plain", "?yes=true", `{"snapshot":"before"}`, ok},
		{control.RouteSnapshotDelete, "before", "?yes=true", "", http.StatusAccepted}, {control.RouteDiskRekey, "vault", "", "", http.StatusAccepted},
		{control.RouteImageCreate, "", "", `{"name":"golden","disk":"plain"}`, ok}, {control.RouteImageUpload, "", "?name=sent&encrypted=true", uploaded(t, 512), locked},
		{control.RouteImageUpload, "", "?name=sent", uploaded(t, 512), ok}, {control.RouteImageList, "", "", "", ok}, {control.RouteImageShow, "golden", "", "", ok},
		{control.RouteImageCopy, "golden", "", `{"name":"copied"}`, http.StatusAccepted}, {control.RouteImageDelete, "sent", "?yes=true", "", http.StatusNoContent},
		{control.RouteBackupCreate, "", "", `{"name":"monday","disk":"plain"}`, http.StatusAccepted}, {control.RouteBackupList, "", "", "", ok}, {control.RouteBackupShow, "none", "", "", http.StatusNotFound},
		{control.RouteBackupVerify, "none", "", "", http.StatusNotFound}, {control.RouteBackupExport, "none", "", "", http.StatusNotFound}, {control.RouteBackupKey, "", "", "", ok},
		{control.RouteBackupOffer, "", "", "{}", http.StatusInternalServerError}, {control.RouteBackupImport, "", "", uploaded(t, 512), http.StatusBadRequest},
		{control.RouteBackupPrune, "", "", `{"disk":"plain","keep":1}`, ok}, {control.RouteBackupDelete, "none", "?yes=true", "", http.StatusNotFound},
		{control.RouteServerCreate, "", "", `{"name":"web","image":"golden"}`, ok}, {control.RouteServerCreate, "", "", `{"name":"safe","image":"golden","system":{},"data":[{"size":1048576,"encrypted":true}]}`, locked},
		{control.RouteServerList, "", "", "", ok}, {control.RouteServerShow, "web", "", "", ok}, {control.RouteServerAttach, "web", "", `{"disk":"vault"}`, ok},
		{control.RouteServerRun, "web", "", `{"token":"0123456789abcdef0123456789abcdef"}`, locked}, {control.RouteServerDetach, "web", "", `{"disk":"vault"}`, ok},
		{control.RouteServerStop, "web", "", "{}", http.StatusConflict},
		{control.RouteConfigCreate, "", "", `{"name":"small","server":"web"}`, ok}, {control.RouteConfigList, "", "", "", ok}, {control.RouteConfigShow, "small", "", "", ok},
		{control.RouteGroupCreate, "", "", `{"name":"many","config":"small","min":0,"max":2}`, http.StatusAccepted}, {control.RouteGroupList, "", "", "", ok},
		{control.RouteGroupShow, "none", "", "", http.StatusNotFound}, {control.RouteGroupScale, "none", "", `{"size":1}`, http.StatusNotFound}, {control.RouteGroupDelete, "none", "?yes=true", "", http.StatusNotFound},
		{control.RouteConfigDelete, "none", "?yes=true", "", http.StatusNotFound}, {control.RouteServerDelete, "web", "?yes=true", "", http.StatusNoContent},
		{control.RouteCheck, "", "", "{}", http.StatusAccepted}, {control.RouteJobList, "", "", "", ok},
		{control.RouteAuditList, "", "", "", ok}, {control.RouteAuditHead, "", "", "", ok}, {control.RouteAuditVerify, "", "", "{}", http.StatusAccepted},
		{control.RouteJobShow, "none", "", "", http.StatusNotFound}, {control.RouteJobCancel, "none", "", "", http.StatusNotFound},
		{control.RouteSlotList, "", "", "", ok}, {control.RouteSlotAdd, "", "?name=new", "", locked}, {control.RouteSlotRemove, "key-file", "?yes=true", "", locked},
		{control.RouteSlotKeyFile, "", "", "", locked}, {control.RouteSlotTPM, "", "", `{"name":"tpm"}`, locked}, {control.RouteSlotReseal, "key-file", "", `{}`, locked},
		{control.RouteSlotToken, "", "", `{"name":"box","token":"pkcs11:token=box;object=key?module-path=/none"}`, locked}, {control.RouteSlotCredential, "", "", `{"name":"systemd"}`, locked},
		{control.RouteSlotGive, "", "?name=mine", "", locked},
		{control.RouteRecoveryCreate, "", "", `{"name":"kit","shares":1,"threshold":1}`, locked},
		{control.RouteRoleGrant, "", "", `{"user":"1234","role":"user"}`, ok}, {control.RouteRoleList, "", "", "", ok},
		{control.RouteRoleRevoke, "", "", `{"user":"1234","role":"user"}`, http.StatusNoContent},
		{control.RouteProjectCreate, "", "", `{"name":"shop"}`, ok}, {control.RouteProjectList, "", "", "", ok}, {control.RouteProjectShow, "shop", "", "", ok},
		{control.RouteProjectSet, "shop", "", `{"encrypt_by_default":true}`, ok}, {control.RouteProjectDelete, "shop", "?yes=true", "", http.StatusNoContent},
		{control.RouteKeyGrant, "mine", "", `{"user":"1234","operation":"decrypt"}`, ok}, {control.RouteKeyGrants, "mine", "", "", ok},
		{control.RouteKeyGrantRevoke, "mine", "", `{"grant":"none"}`, http.StatusNotFound}, {control.RouteKeyGrantRetire, "mine", "", `{"grant":"none"}`, http.StatusNotFound},
		{control.RouteGrantRevoke, "", "?yes=true", "", http.StatusNoContent}, {control.RouteGrantCreate, "", "", "", ok},
		{control.RouteRootLock, "", "", "", ok}, {control.RouteRootUnlock, "", "", "", ok}, {control.RouteRootPassphrase, "", "", "", ok},
		{control.RouteRecoveryOpen, "", "", "", ok}, {control.RouteRecoveryVerify, "", "", "", http.StatusBadRequest},
	} {
		walked[c.route] = true
		path := c.route
		if before, after, found := strings.Cut(path, "{"); found {
			_, after, _ = strings.Cut(after, "}")
			path = before + c.name + after
		}
		status, body := d.call(t, path+c.query, nbd.Peer{}, c.body)
		if status != c.want || (status == locked) != (codeIn(body) == refusal.Locked) || status == locked && !strings.Contains(body, "nbdcrypt root unlock") {
			t.Errorf("%s %s answers %d %s", path, c.body, status, body)
		}
		if c.route == control.RouteCheck {
			var job control.Job
			_ = json.Unmarshal([]byte(body), &job)
			if job, _ = d.jobs.Get(t.Context(), job.ID, job.Revision, time.Minute); job.Error == nil || job.Error.Code != int(refusal.Locked) {
				t.Errorf("check ends with %+v", job)
			}
		}
	}
	for _, r := range routes {
		if !walked[r.pattern] {
			t.Errorf("%s is not in this test", r.pattern)
		}
	}
}

// The root key is not locked where nothing could open it again.
func TestLockIsRefusedWhereNothingOpensAgain(t *testing.T) {
	d := start(t)
	if err := os.Remove(d.o.RootKey); err != nil {
		t.Fatal(err)
	}
	if status, body := d.call(t, control.RouteRootLock, nbd.Peer{}, ""); codeIn(body) != refusal.Busy || d.root.Locked() {
		t.Errorf("%d %s", status, body)
	}
	if status, body := d.call(t, control.RouteKeyCreate, nbd.Peer{}, `{"alias":"mine"}`); status != http.StatusOK {
		t.Errorf("%d %s", status, body)
	}
}

// Removing a slot wants a yes and says what an older copy of the state directory still can do.
func TestSlotRemoveAsks(t *testing.T) {
	d, restore := startLocked(t)
	restore()
	d.call(t, control.RouteRootUnlock, nbd.Peer{}, "")
	for slot, says := range map[string]string{"alice": "older copy", "key-file": "starts locked"} {
		if status, body := d.call(t, "DELETE /v1/root/slots/"+slot, nbd.Peer{}, ""); status != http.StatusPreconditionRequired || !strings.Contains(body, says) {
			t.Errorf("%s: %d %s", slot, status, body)
		}
	}
	if status, body := d.call(t, "DELETE /v1/root/slots/key-file?yes=true", nbd.Peer{}, ""); status != http.StatusOK || !strings.Contains(body, d.o.RootKey) {
		t.Errorf("%d %s", status, body)
	}
	if _, err := os.Stat(d.o.RootKey); err == nil {
		t.Error("the key file is there")
	}
	if status, body := d.call(t, "DELETE /v1/root/slots/alice?yes=true", nbd.Peer{}, ""); status != http.StatusConflict {
		t.Errorf("the last slot: %d %s", status, body)
	}
	if status, body := d.call(t, "DELETE /v1/root/slots/none?yes=true", nbd.Peer{}, ""); status != http.StatusNotFound {
		t.Errorf("%d %s", status, body)
	}
}

const passphraseCall = "POST /v1/root/unlock/passphrase HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: nbdcrypt-passphrase\r\n\r\n"

// Clients that never send their passphrase do not keep others from unlocking, do not hold a stop up for long, and leave
// nothing in key memory.
func TestClientsThatKeepTheirPassphrase(t *testing.T) {
	o, _ := lockedStore(t)
	stop := run(t, o)
	for n := range maxGuesses - 1 {
		c := hold(t, o, passphraseCall)
		if _, err := c.Read(make([]byte, 20)); err != nil { // it is asked now
			t.Fatal(err)
		}
		if _, err := c.Write([]byte{0, 0, 4, 0, 'x'}[:n]); err != nil { // and the rest never comes
			t.Fatal(err)
		}
	}
	if state, err := client(o).RootPassphrase(t.Context(), []byte(rightPassphrase)); err != nil || !state.Changed {
		t.Fatalf("%+v, %v", state, err)
	}
	before := time.Now()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(before); took > 15*time.Second {
		t.Errorf("the stop took %v", took)
	}
	if holds("passphrase") {
		t.Error("it is in memory still")
	}
}

// What a client sends that is no passphrase is refused before anything is tried, leaves nothing in key memory, and is in the log
// (rule B16).
func TestHostilePassphraseClients(t *testing.T) {
	o := options(t)
	run(t, o)
	if _, err := client(o).RootLock(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ call, then, says string }{
		"sends early": {passphraseCall + "\x00\x00\x00\x08too soon", "", "before they were asked for"},
		"empty":       {passphraseCall, "\x00\x00\x00\x00", "0 bytes"},
		"too long":    {passphraseCall, "\x00\x00\x04\x01", "1025 bytes"},
		"huge":        {passphraseCall, "\xff\xff\xff\xff", "4294967295 bytes"},
		"hangs up":    {passphraseCall, "\x00\x00\x00\x08half", "did not arrive whole"},
		"no upgrade":  {strings.Replace(passphraseCall, "Upgrade:", "Other:", 1), "", "needs the header"},
	} {
		conn := hold(t, o, c.call)
		if c.then != "" {
			if head, err := conn.Read(make([]byte, 200)); err != nil || head == 0 { // it is asked now
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, c.then); err != nil {
				t.Fatal(err)
			}
		}
		_ = conn.(*net.UnixConn).CloseWrite()
		if answer, err := io.ReadAll(conn); err != nil || !strings.Contains(string(answer), c.says) {
			t.Errorf("%s: %v: %s", name, err, answer)
		}
	}
	if holds("passphrase") || holds("root") {
		t.Error("keys are in memory")
	}
	text, err := os.ReadFile(filepath.Join(o.State, keystore.AuditFile))
	if n := bytes.Count(text, []byte(`"verb":"root unlock"`)); err != nil || n != 6 {
		t.Errorf("%d records, %v", n, err)
	}
	if _, err := client(o).RootUnlock(t.Context()); err != nil {
		t.Error(err)
	}
}

// A daemon that stops while it works on a passphrase does not wait for that.
func TestStopEndsAnUnlock(t *testing.T) {
	o, _ := lockedStore(t)
	stop := run(t, o)
	answer := make(chan error, 1)
	go func() {
		_, err := client(o).RootPassphrase(context.Background(), []byte(strings.Repeat("x", 100)))
		answer <- err
	}()
	for end := time.Now().Add(time.Minute); !holds("passphrase"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the passphrase does not arrive")
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if err := <-answer; err == nil {
		t.Error("it was unlocked")
	}
	if holds("passphrase") || holds("root") {
		t.Error("keys are left in memory")
	}
}

func holds(kind string) bool {
	for _, k := range secret.List() {
		if k.Kind == kind {
			return true
		}
	}
	return false
}
