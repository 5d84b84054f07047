package daemon

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"nbdcrypt/nbd"
	"nbdcrypt/pkg/control"
)

// Rules A21, A36: what is under a key that is deleted is refused by the key (4), by its id and that it is deleted; it is not as if the caller had named
// a key that there is not. All of it can be deleted.
func TestRuleA21_WhatIsUnderADeletedKey(t *testing.T) {
	d, c, _ := onClock(t)
	mine := mustAsk[control.Key](t, d, control.RouteKeyCreate, "", `{"alias":"mine"}`)
	must(t, d, control.RouteDiskCreate, `{"name":"vault","size":1048576,"key":"mine"}`)
	must(t, d, control.RouteSnapshotCreate, `{"name":"before","disk":"vault"}`)
	must(t, d, control.RouteImageCreate, `{"name":"golden","disk":"vault"}`)
	jobOf[control.Backup](t, d, control.RouteBackupCreate, `{"name":"monday","disk":"vault"}`)
	must(t, d, "POST /v1/disks/vault/attach", "{}")
	mustAsk[control.Key](t, d, control.RouteKeySchedule+"?yes=true", "mine", `{"days":7}`)
	c.Advance(7 * day)
	d.lookAtDue(t.Context())
	gone := func(route, body string) {
		t.Helper()
		status, text := d.call(t, route, nbd.Peer{}, body)
		if status == http.StatusAccepted {
			job, err := json.Marshal(d.awaitJob(t, text))
			text = string(job)
			if err != nil {
				t.Fatal(err)
			}
		}
		if !strings.Contains(text, `"code":4,`) || !strings.Contains(text, mine.ID) || !strings.Contains(text, "is deleted") {
			t.Errorf("%s %s: %s", route, body, text)
		}
	}
	gone(control.RouteSnapshotCreate, `{"name":"after","disk":"vault"}`)
	gone(control.RouteDiskCreate, `{"name":"no","from_snapshot":"before"}`)
	gone(control.RouteDiskCreate, `{"name":"no","from_image":"golden"}`)
	gone(control.RouteDiskCreate, `{"name":"no","from_backup":"monday"}`)
	gone(control.RouteImageCreate, `{"name":"no","disk":"vault"}`)
	gone("POST /v1/images/golden/copy", `{"name":"no"}`)
	gone(control.RouteBackupCreate, `{"name":"no","disk":"vault"}`)
	gone("POST /v1/disks/vault/rekey", "")
	must(t, d, "POST /v1/disks/vault/detach?yes=true", "{}")
	gone("POST /v1/disks/vault/rollback?yes=true", `{"snapshot":"before"}`)
	for _, of := range []string{"images/golden", "backups/monday", "disks/vault"} {
		if status, text := d.call(t, "DELETE /v1/"+of+"?yes=true", nbd.Peer{}, ""); status >= 300 {
			t.Errorf("deleting %s: %d %s", of, status, text)
		}
	}
}
