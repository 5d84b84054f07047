package daemon

import (
	"encoding/json"
	"strings"
	"testing"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// A snapshot, a disk from it and back to it, as callers see them.
func TestSnapshotsByTheAPI(t *testing.T) {
	d := start(t)
	must(t, d, control.RouteKeyCreate, `{"alias":"mine"}`)
	must(t, d, control.RouteKeyCreate, `{"alias":"other"}`)
	must(t, d, control.RouteDiskCreate, `{"name":"vault","size":1048576,"key":"mine"}`)
	disk := mustAsk[control.Disk](t, d, control.RouteDiskShow, "vault", "")
	s := mustAsk[control.Snapshot](t, d, control.RouteSnapshotCreate, "", `{"name":"before","disk":"vault"}`)
	if s.Name != "before" || s.Size != 1048576 || s.SectorSize != 512 || !s.Encrypted || s.Key == nil || s.Key.Alias != "mine" || s.Status != "available" ||
		s.Source == nil || *s.Source != (control.DiskSource{Kind: "disk", ID: disk.ID, Name: "vault"}) {
		t.Errorf("%+v", s)
	}
	if again := mustAsk[control.Snapshot](t, d, control.RouteSnapshotShow, s.ID, ""); again.ID != s.ID {
		t.Errorf("%+v", again)
	}
	twin := mustAsk[control.Disk](t, d, control.RouteDiskCreate, "", `{"name":"twin","from_snapshot":"before"}`)
	if twin.Source == nil || *twin.Source != (control.DiskSource{Kind: "snapshot", ID: s.ID, Name: "before"}) || len(twin.Layers) != 2 || twin.Key.Alias != "mine" {
		t.Errorf("%+v", twin)
	}
	for _, asked := range []string{`"encrypted":false`, `"key":"other"`, `"sector_size":4096`, `"size":512`} {
		refused(t, d, refusal.Usage, control.RouteDiskCreate, "", `{"name":"no","from_snapshot":"before",`+asked+`}`)
	}
	refused(t, d, refusal.Usage, control.RouteDiskCreate, "", `{"name":"no","size":512,"full":true}`)
	refused(t, d, refusal.NotFound, control.RouteDiskCreate, "", `{"name":"no","from_snapshot":"none"}`)
	for query, want := range map[string]int{"": 1, "?disk=vault": 1, "?disk=twin": 0} {
		var list []control.Snapshot
		if err := json.Unmarshal([]byte(must(t, d, control.RouteSnapshotList+query, "")), &list); err != nil || len(list) != want {
			t.Errorf("list %s: %+v, %v", query, list, err)
		}
	}
	// What a yes is asked for names both.
	if asked := refused(t, d, refusal.Confirm, control.RouteDiskRollback, "vault", `{"snapshot":"before"}`); !strings.Contains(asked.Message, "disk vault") || !strings.Contains(asked.Message, "snapshot before") {
		t.Error(asked.Message)
	}
	// B11: the question says what goes with the disk.
	if asked := refused(t, d, refusal.Confirm, control.RouteDiskDelete, "vault", ""); !strings.Contains(asked.Message, "with its snapshots (before)") {
		t.Error(asked.Message)
	}
	if asked := refused(t, d, refusal.Confirm, control.RouteDiskDelete, "twin", ""); strings.Contains(asked.Message, "snapshots") {
		t.Error(asked.Message)
	}
	refused(t, d, refusal.Usage, "POST /v1/disks/{disk}/rollback?yes=true", "twin", `{"snapshot":"before"}`)
}

// A CMK that can't be used refuses a snapshot with exit code 4, and the disk goes on.
func TestSnapshotUnderAnUnusableKey(t *testing.T) {
	d := start(t)
	must(t, d, control.RouteKeyCreate, `{"alias":"mine"}`)
	must(t, d, control.RouteDiskCreate, `{"name":"vault","size":1048576,"key":"mine"}`)
	must(t, d, control.RouteSnapshotCreate, `{"name":"before","disk":"vault"}`)
	must(t, d, "POST /v1/disks/vault/attach", "{}")
	must(t, d, "POST /v1/keys/mine/disable", "")
	refused(t, d, refusal.KeyForbids, control.RouteSnapshotCreate, "", `{"name":"after","disk":"vault"}`)
	refused(t, d, refusal.KeyForbids, control.RouteDiskCreate, "", `{"name":"twin","from_snapshot":"before"}`)
	if s := mustAsk[control.Snapshot](t, d, control.RouteSnapshotShow, "before", ""); len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "Disabled") {
		t.Errorf("%+v", s)
	}
	if disk := mustAsk[control.Disk](t, d, control.RouteDiskShow, "vault", ""); disk.Status != "in-use" {
		t.Errorf("%+v", disk)
	}
}

// Rule C17: who has a grant of a key sees the snapshots under it, and with one to encrypt makes disks of those; of others nothing.
func TestRuleC17_GrantsAndSnapshots(t *testing.T) {
	d := startShop(t)
	must(t, d, control.RouteSnapshotCreate, `{"name":"theirs","disk":"apart"}`)
	for letter, want := range map[string]int{"A": 2, "U": 2, "R": 2, "D": 1} {
		var list []control.Snapshot
		text := by(t, d, inDefault+played[letter], control.RouteSnapshotList, "", refusal.OK)
		if err := json.Unmarshal([]byte(text), &list); err != nil || len(list) != want {
			t.Errorf("%s sees %s", letter, text)
		}
	}
	by(t, d, inDefault+played["D"], "GET /v1/snapshots/theirs", "", refusal.Denied)
	encrypter := inDefault + played["E"]
	by(t, d, encrypter, control.RouteDiskCreate, `{"name":"twin","from_snapshot":"before"}`, refusal.OK)
	by(t, d, encrypter, control.RouteDiskCreate, `{"name":"no","from_snapshot":"theirs"}`, refusal.Denied)
	by(t, d, encrypter, control.RouteDiskCreate, `{"name":"no","from_snapshot":"theirs","key":"mine"}`, refusal.Denied)
	by(t, d, inDefault+played["D"], control.RouteDiskCreate, `{"name":"no","from_snapshot":"before"}`, refusal.Denied)
	if all := d.records(t); all[len(all)-1].Resource != "no before" {
		t.Errorf("%+v", all[len(all)-1])
	}
}
