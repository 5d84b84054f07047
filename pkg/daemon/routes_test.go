package daemon

import (
	"bytes"
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"nbdcrypt/keystore"
	"nbdcrypt/nbd"
	"nbdcrypt/pkg/access"
)

// Every route of the control API is served, and by no other pattern.
func TestEveryRouteIsServed(t *testing.T) {
	want := map[string]bool{}
	for _, name := range []string{"api.go", "servers.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), "../control/"+name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "Route") {
				pattern, _ := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
				want[pattern] = true
			}
			return true
		})
	}
	if len(want) < 20 {
		t.Fatalf("only %d routes found", len(want))
	}
	for _, r := range routes {
		if !want[r.pattern] {
			t.Errorf("%s is served twice, or is no route of the API", r.pattern)
		}
		delete(want, r.pattern)
	}
	for pattern := range want {
		t.Errorf("%s is not served", pattern)
	}
}

// Access is asked for every route, with that verb's own action: a stranger is refused everywhere but at the status and at the
// list of his projects.
func TestEveryRouteAsksAccess(t *testing.T) {
	d := start(t)
	seen := map[access.Action]string{}
	for _, r := range routes {
		if other, twice := seen[r.action]; twice && other != r.verb {
			t.Errorf("%s and %s share the action %v", r.verb, other, r.action)
		}
		seen[r.action] = r.verb
		status, _ := d.call(t, r.pattern, nbd.Peer{UID: 65534}, "{}")
		if refused := status == http.StatusForbidden; refused == (r.action == access.StatusShow || r.action == access.ProjectList) {
			t.Errorf("%s answers a stranger with %d", r.pattern, status)
		}
	}
}

// A connection whose peer the kernel did not name is nobody, not root.
func TestNoPeerIsNobody(t *testing.T) {
	d := start(t)
	w := httptest.NewRecorder()
	d.newAPI().Handler.ServeHTTP(w, httptest.NewRequest("GET", "/v1/disks", nil))
	if w.Code != http.StatusForbidden {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
}

// A change that is sent again with its id gets the same answer; nothing is done twice.
func TestRepeatedCallHappensOnce(t *testing.T) {
	d := start(t)
	for range 3 {
		status, body := d.callAs(t, "POST /v1/keys", nbd.Peer{}, `{"alias":"mine"}`, "same-id")
		if status != http.StatusOK {
			t.Fatalf("status %d: %s", status, body)
		}
	}
	if status, _ := d.callAs(t, "POST /v1/keys", nbd.Peer{}, `{"alias":"mine"}`, "another-id"); status != http.StatusConflict {
		t.Errorf("a second key of that alias: %d", status)
	}
	if status, _ := d.callAs(t, "POST /v1/keys", nbd.Peer{UID: 65534}, `{"alias":"mine"}`, "same-id"); status != http.StatusForbidden {
		t.Errorf("a stranger got another's answer: %d", status)
	}
}

// A panic in a verb is that call's error, and recorded (rule B16); the daemon goes on, and whoever repeats the call is
// not left waiting.
func TestPanicIsOneCallsError(t *testing.T) {
	d := start(t)
	bad := route{pattern: "POST /v1/keys", action: access.KeyCreate, verb: "panic", how: changes,
		do: func(*Daemon, *call) (any, error) { panic("boom") }}
	for range 2 {
		req := request(bad.pattern, nbd.Peer{}, "{}", "p")
		w := httptest.NewRecorder()
		d.handler(bad).ServeHTTP(w, req)
		if w.Code != http.StatusInternalServerError {
			t.Errorf("status %d", w.Code)
		}
	}
	text, err := os.ReadFile(filepath.Join(d.o.State, keystore.AuditFile))
	if n := bytes.Count(text, []byte(`"verb":"panic"`)); err != nil || n != 1 {
		t.Errorf("%d records: %v", n, err)
	}
}

// A caller who hangs up is in the log all the same (rule B16), and the log is not said to be broken.
func TestCallerWhoHangsUpIsRecorded(t *testing.T) {
	d := start(t)
	ctx, hangUp := context.WithCancel(t.Context())
	hangUp()
	req := request("GET /v1/keys", nbd.Peer{}, "", "gone")
	for _, r := range routes {
		if r.pattern == "GET /v1/keys" {
			d.handler(r).ServeHTTP(httptest.NewRecorder(), req.WithContext(context.WithValue(ctx, peerKey{}, nbd.Peer{})))
		}
	}
	text, err := os.ReadFile(filepath.Join(d.o.State, keystore.AuditFile))
	if err != nil || !bytes.Contains(text, []byte(`"request":"gone"`)) {
		t.Errorf("not in the log: %v", err)
	}
	for _, w := range d.allWarnings() {
		if strings.Contains(w, "audit") {
			t.Error(w)
		}
	}
}
