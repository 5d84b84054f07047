package daemon

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nbdcrypt/keystore"
	"nbdcrypt/nbd"
	"nbdcrypt/pkg/audit"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// A log that is damaged keeps the daemon from starting, until it is told to begin another: then everything is there, the first record says
// what was wrong, and the old log is kept.
func TestDamagedLogIsReplacedOnRequest(t *testing.T) {
	for what, spoil := range map[string]func(t *testing.T, log, head string){
		"edited": func(t *testing.T, log, _ string) {
			edit(t, log, bytes.Replace(text(t, log), []byte("disk create"), []byte("disk delete"), 1))
		},
		"cut":            func(t *testing.T, log, _ string) { edit(t, log, text(t, log)[:bytes.IndexByte(text(t, log), '\n')+1]) },
		"empty":          func(t *testing.T, log, _ string) { edit(t, log, nil) },
		"missing":        func(t *testing.T, log, _ string) { remove(t, log) },
		"head missing":   func(t *testing.T, _, head string) { remove(t, head) },
		"head spoiled":   func(t *testing.T, _, head string) { edit(t, head, make([]byte, 8192)) },
		"both cut alike": func(t *testing.T, log, head string) { remove(t, log); remove(t, head) },
	} {
		t.Run(what, func(t *testing.T) {
			d := start(t)
			mustAsk[control.Disk](t, d, control.RouteDiskCreate, "", `{"name":"vault","size":1048576,"encrypted":true}`)
			o := d.o
			d.close()
			d.root, d.locks = nil, nil
			log, head := filepath.Join(o.State, keystore.AuditFile), filepath.Join(o.State, audit.HeadFile)
			spoil(t, log, head)
			spoiled, _ := os.ReadFile(log)
			refused := startOf(t, o)
			if refusal.CodeOf(refused) != refusal.Damaged || !strings.Contains(refusal.From(refused).Hint, "--replace-audit-log") {
				t.Fatalf("the start says %v", refused)
			}
			o.ReplaceAuditLog = true
			d = newDaemon(o)
			t.Cleanup(d.close)
			if err := d.open(t.Context()); err != nil {
				t.Fatal(err)
			}
			if first := string(bytes.SplitN(text(t, log), []byte("\n"), 2)[0]); !strings.Contains(first, `"audit.replaced"`) || !strings.Contains(first, `.damaged-`) {
				t.Errorf("the new log begins with %s", first)
			}
			if kept, _ := filepath.Glob(log + ".damaged-*"); len(spoiled) > 0 && (len(kept) != 1 || !bytes.Equal(text(t, kept[0]), spoiled)) {
				t.Errorf("the old log is kept as %v", kept)
			}
			mustAsk[control.Attached](t, d, control.RouteAttach, "vault", "{}")
			o.ReplaceAuditLog = false
			d.o.ReplaceAuditLog = false
			next := again(t, d)
			if status, body := next.call(t, control.RouteAuditVerify, nbd.Peer{}, "{}"); status >= 300 {
				t.Errorf("verified, the new log is %d %s", status, body)
			}
		})
	}
}

// startOf opens a daemon that is not kept, and tells how that went.
func startOf(t *testing.T, o Options) error {
	t.Helper()
	d := newDaemon(o)
	defer d.close()
	return d.open(t.Context())
}

func text(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func edit(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}
