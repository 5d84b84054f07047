package daemon

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"nbdcrypt/nbd"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/kit"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

// secretCall makes a call whose answer is past the HTTP server's buffers: over a connection.
func (d *Daemon) secretCall(t *testing.T, pattern, body string) []byte {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		made := request(pattern, nbd.Peer{}, body, newRequest())
		made.RemoteAddr = r.RemoteAddr
		d.newAPI().Handler.ServeHTTP(w, made)
	}))
	defer server.Close()
	answer, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(bufio.NewReader(answer.Body))
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %s, %v", pattern, answer.StatusCode, text, err)
	}
	return text
}

// A kit leaves as sheets that read back, is recorded before, and nothing of it stays in memory.
func TestRecoveryKitLeaves(t *testing.T) {
	d := start(t)
	var made control.RecoveryKit
	if err := json.Unmarshal(d.secretCall(t, control.RouteRecoveryCreate, `{"name":"kit","shares":3,"threshold":2}`), &made); err != nil {
		t.Fatal(err)
	}
	if made.Store != d.root.Store.String() || made.Slot.Name != "kit" || made.Shares != 3 || made.Threshold != 2 || len(made.Sheets) != 3 {
		t.Fatalf("%+v", made)
	}
	given, err := secret.Work(2*kit.ShareSize, secret.Purpose{})
	if err != nil {
		t.Fatal(err)
	}
	defer given.Destroy()
	for i, sheet := range made.Sheets[1:] {
		for n, line := range sheet.Lines {
			if err := kit.ReadLine(given.Bytes()[i*kit.ShareSize:][:kit.ShareSize], []byte(line), n+1); err != nil || sheet.Share != i+2 {
				t.Errorf("sheet %d: %v", sheet.Share, err)
			}
		}
	}
	if slot, err := d.root.VerifyRecovery(t.Context(), given); err != nil || slot.ID != made.Slot.ID {
		t.Errorf("%+v, %v", slot, err)
	}
	if last := d.records(t)[len(d.records(t))-1]; last.Verb != "root recovery create" || last.Resource != "kit" || last.Key != "slot/"+made.Slot.ID {
		t.Errorf("recorded is %+v", last)
	}
	for deadline := time.Now().Add(5 * time.Second); holds("slot") && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		// It is wiped once it was sent, which we may learn first.
	}
	if holds("recovery") || holds("slot") || secret.Unwiped() != 0 {
		t.Errorf("in memory are %v", secret.List())
	}
}

// A credential leaves once, as the hex of 32 bytes, and opens the slot that was made with it.
func TestCredentialLeaves(t *testing.T) {
	d := start(t)
	var made control.Credential
	if err := json.Unmarshal(d.secretCall(t, control.RouteSlotCredential, `{"name":"systemd"}`), &made); err != nil {
		t.Fatal(err)
	}
	if made.Slot.Kind != control.SlotCredential || made.Credential != "nbdcrypt.root" || len(made.Secret) != 64 || !made.Slot.Automatic || made.Slot.Present {
		t.Fatalf("%+v", made)
	}
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	if err := os.WriteFile(dir+"/nbdcrypt.root", []byte(made.Secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(d.o.RootKey); err != nil {
		t.Fatal(err)
	}
	if status, body := d.call(t, control.RouteRootLock, nbd.Peer{}, ""); status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	if status, body := d.call(t, control.RouteRootUnlock, nbd.Peer{}, ""); status != http.StatusOK || !strings.Contains(body, made.Slot.ID) {
		t.Errorf("%d %s", status, body)
	}
	if status, body := d.call(t, control.RouteSlotKeyFile, nbd.Peer{}, ""); status != http.StatusOK || !strings.Contains(body, d.o.RootKey) {
		t.Errorf("%d %s", status, body)
	}
	if status, body := d.call(t, control.RouteSlotKeyFile, nbd.Peer{}, ""); codeIn(body) != refusal.Busy {
		t.Errorf("a second one: %d %s", status, body)
	}
	// The other one opens by itself too, so that the start will not be locked.
	if _, body := d.call(t, "DELETE /v1/root/slots/systemd", nbd.Peer{}, ""); strings.Contains(body, "starts locked") {
		t.Error(body)
	}
	if err := os.Remove(dir + "/nbdcrypt.root"); err != nil {
		t.Fatal(err)
	}
	if _, body := d.call(t, "DELETE /v1/root/slots/key-file", nbd.Peer{}, ""); !strings.Contains(body, "starts locked") {
		t.Error(body)
	}
}

// Where its making can't be recorded a kit does not leave, and its slot goes again.
func TestUnrecordedKitDoesNotLeave(t *testing.T) {
	d := start(t)
	if err := d.log.Close(); err != nil {
		t.Fatal(err)
	}
	status, body := d.call(t, control.RouteRecoveryCreate, nbd.Peer{}, `{"name":"kit","shares":1,"threshold":1}`)
	if status == http.StatusOK || bytes.Contains([]byte(body), []byte("lines")) {
		t.Errorf("%d %s", status, body)
	}
	if slots, err := d.root.Slots(); err != nil || len(slots) != 1 {
		t.Errorf("there are %+v, %v", slots, err)
	}
}

// Where who asked has gone before the answer the slot goes too, and that is recorded.
func TestUntoldSecretLeavesNoSlot(t *testing.T) {
	d := start(t)
	for route, body := range map[string]string{control.RouteRecoveryCreate: `{"name":"made","shares":1,"threshold":1}`, control.RouteSlotCredential: `{"name":"made"}`} {
		d.call(t, route, nbd.Peer{}, body) // it has no connection to send a secret over
		if slots, err := d.root.Slots(); err != nil || len(slots) != 1 {
			t.Errorf("%s: there are %+v, %v", route, slots, err)
		}
		if last := d.records(t)[len(d.records(t))-1]; last.Verb != "slot.removed" || last.Resource != "made" || last.Outcome != "ok" {
			t.Errorf("%s: recorded is %+v", route, last)
		}
	}
	if secret.Unwiped() != 0 {
		t.Errorf("in memory are %v", secret.List())
	}
}
