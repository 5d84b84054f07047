package daemon

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nbdcrypt/keystore"
	"nbdcrypt/nbd"
	"nbdcrypt/pkg/clock"
	"nbdcrypt/pkg/control"
)

// onClock opens a daemon as start does, on a clock of the test's, and returns what it logs.
func onClock(t *testing.T) (d *Daemon, c *clock.Fake, said *bytes.Buffer) {
	t.Helper()
	o := options(t)
	c, said = clock.NewFake(time.Unix(2e9, 0)), &bytes.Buffer{}
	o.Clock, o.Log = c, slog.New(slog.NewTextHandler(said, nil))
	d = newDaemon(o)
	t.Cleanup(d.close)
	t.Cleanup(func() { _ = d.jobs.Shutdown(context.Background()) })
	if err := d.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustAsk[control.Grant](t, d, control.RouteGrantCreate, "", "")
	return d, c, said
}

// asks makes a call of root's about a thing, and returns its answer's status, and the answer as what it must be.
func asks[T any](t *testing.T, d *Daemon, route, name, body string) (status int, v T) {
	t.Helper()
	if before, after, found := strings.Cut(route, "{"); found {
		_, after, _ = strings.Cut(after, "}")
		route = before + name + after
	}
	status, text := d.call(t, route, nbd.Peer{}, body)
	if status < 300 {
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatalf("%s: %v in %s", route, err, text)
		}
	}
	return status, v
}

func mustAsk[T any](t *testing.T, d *Daemon, route, name, body string) T {
	t.Helper()
	status, v := asks[T](t, d, route, name, body)
	if status >= 300 {
		t.Fatalf("%s of %q answers %d", route, name, status)
	}
	return v
}

// recorded counts a verb's records in the audit log.
func (d *Daemon) recorded(t *testing.T, verb, outcome string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(d.o.State, keystore.AuditFile))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, `"verb":"`+verb+`"`) && strings.Contains(line, `"outcome":"`+outcome+`"`) {
			n++
		}
	}
	return n
}

// Rule B6: the daemon rotates what is due, tells of it and records it; a key that was disabled catches up once it is enabled.
func TestRuleB6_DaemonRotatesWhatIsDue(t *testing.T) {
	d, c, said := onClock(t)
	mustAsk[control.Key](t, d, control.RouteKeyCreate, "", `{"alias":"k"}`)
	mustAsk[control.Key](t, d, control.RouteKeyRotation, "k", `{"days":30}`)
	version := func() int { return mustAsk[control.Key](t, d, control.RouteKeyShow, "k", "").Version }
	pass := func(days int) {
		for range days {
			c.Advance(24 * time.Hour)
			d.lookAtDue(t.Context())
		}
	}
	pass(29)
	if v := version(); v != 1 {
		t.Errorf("a day too early it has version %d", v)
	}
	pass(1)
	if v := version(); v != 2 || d.recorded(t, "key.rotated", "ok") != 1 || strings.Count(said.String(), "event=key-rotated") != 1 {
		t.Errorf("it has version %d, %d records; the log says %s", v, d.recorded(t, "key.rotated", "ok"), said)
	}
	mustAsk[control.Key](t, d, control.RouteKeyDisable, "k", "")
	pass(100)
	if v := version(); v != 2 {
		t.Errorf("disabled, it has version %d", v)
	}
	mustAsk[control.Key](t, d, control.RouteKeyEnable, "k", "")
	d.lookAtDue(t.Context())
	d.lookAtDue(t.Context())
	if v := version(); v != 3 {
		t.Errorf("enabled again, it has version %d", v)
	}
}

// Rule B7 through the API: prepare, wrap as anybody can, import, expire; what was deleted is told of and recorded.
func TestRuleB7_ImportAndExpiry(t *testing.T) {
	d, c, said := onClock(t)
	mustAsk[control.Key](t, d, control.RouteKeyCreate, "", `{"alias":"theirs","origin":"imported"}`)
	p := mustAsk[control.ImportParameters](t, d, control.RouteKeyPrepare, "theirs", "")
	block, _ := pem.Decode([]byte(p.WrappingKey))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public.(*rsa.PublicKey), bytes.Repeat([]byte{7}, 32), nil)
	if err != nil {
		t.Fatal(err)
	}
	expires := c.Now().Add(time.Hour)
	body, err := json.Marshal(control.KeyImport{Token: p.Token, Material: wrapped, Expires: &expires})
	if err != nil {
		t.Fatal(err)
	}
	if k := mustAsk[control.Key](t, d, control.RouteKeyImport, "theirs", string(body)); k.State != "Enabled" || !k.Expires.Equal(expires) {
		t.Errorf("imported, it is %+v", k)
	}
	mustAsk[control.Disk](t, d, control.RouteDiskCreate, "", `{"name":"vault","size":1048576,"key":"theirs"}`)
	c.Advance(time.Hour)
	d.lookAtDue(t.Context())
	if k := mustAsk[control.Key](t, d, control.RouteKeyShow, "theirs", ""); k.State != "Pending import" || k.Expires != nil || k.Version != 0 {
		t.Errorf("expired, it is %+v", k)
	}
	if d.recorded(t, "key.expired", "ok") != 1 || !strings.Contains(said.String(), "event=material-expired") {
		t.Errorf("%d records; the log says %s", d.recorded(t, "key.expired", "ok"), said)
	}
	if status, _ := asks[control.Attached](t, d, control.RouteAttach, "vault", "{}"); status != http.StatusLocked {
		t.Errorf("attach answers %d", status)
	}
	mustAsk[control.Key](t, d, control.RouteKeyImport, "theirs", strings.Replace(string(body), expires.Format(time.RFC3339), "2040-01-01T00:00:00Z", 1))
	mustAsk[control.Attached](t, d, control.RouteAttach, "vault", "{}")
	// Deleting says what is at stake before it asks for a yes, and destroys at once.
	if status, text := d.call(t, "DELETE /v1/keys/theirs/material", nbd.Peer{}, ""); status != http.StatusPreconditionRequired || !strings.Contains(text, "under it, ") {
		t.Errorf("without a yes: %d %s", status, text)
	}
	if k := mustAsk[control.Key](t, d, "DELETE /v1/keys/theirs/material?yes=true", "", ""); k.State != "Pending import" {
		t.Errorf("deleted, it is %+v", k)
	}
}
