package daemon

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// allKinds puts a thing of each kind under key a: two disks, one of them attached, a snapshot, an image and a backup.
func allKinds(t *testing.T, d *Daemon) {
	t.Helper()
	underA(t, d, 2)
	mustAsk[control.Attached](t, d, control.RouteAttach, "d0", "{}")
	must(t, d, control.RouteSnapshotCreate, `{"name":"s","disk":"d0"}`)
	must(t, d, control.RouteImageCreate, `{"name":"i","disk":"d0"}`)
	if j := d.ended(t, mustAsk[control.Job](t, d, control.RouteBackupCreate, "", `{"name":"b","disk":"d0"}`)); j.State != control.JobDone {
		t.Fatalf("%+v", j)
	}
}

func usesOfKey(t *testing.T, d *Daemon, key string) (list []string) {
	t.Helper()
	for _, u := range mustAsk[[]control.KeyUse](t, d, control.RouteKeyUses, key, "") {
		list = append(list, fmt.Sprintf("%s %s %v", u.Kind, u.Name, u.Attached))
	}
	slices.Sort(list)
	return list
}

// TestRuleC7_AllKinds: what is under a key is listed, predicted and counted in questions, whatever kind of thing it is.
func TestRuleC7_AllKinds(t *testing.T) {
	d := start(t)
	allKinds(t, d)
	want := []string{"backup b false", "disk d0 true", "disk d1 false", "image i false", "snapshot s false"}
	if got := usesOfKey(t, d, "a"); !slices.Equal(got, want) {
		t.Errorf("uses: %v", got)
	}
	p := mustAsk[control.Prediction](t, d, control.RouteKeyPredict+"?verb=disable", "a", "")
	for _, e := range p.Effects {
		if e.Attach != control.AttachRefused || (e.IO == control.IOUntilDetach) != (e.Name == "d0") {
			t.Errorf("%+v", e)
		}
	}
	if len(p.Effects) != len(want) {
		t.Errorf("it predicts %+v", p.Effects)
	}
	asked := refused(t, d, refusal.Confirm, control.RouteKeySchedule, "a", `{"days":7}`)
	if !strings.Contains(asked.Message, "1 backup, 2 disks (1 attached), 1 image, 1 snapshot are under it") {
		t.Error(asked.Message)
	}
	if asked := refused(t, d, refusal.Confirm, control.RouteGrantRevoke, "", ""); !strings.Contains(asked.Message, "2 disks, and 3 snapshots, images and backups") {
		t.Error(asked.Message)
	}
}

// TestRuleC5_AllKindsMove: `key rewrap` moves all of them, and each leaves a record of its kind; then nothing is under the key.
func TestRuleC5_AllKindsMove(t *testing.T) {
	d := start(t)
	allKinds(t, d)
	job := d.ended(t, mustAsk[control.Job](t, d, control.RouteKeyRewrap, "a", `{"to":"b"}`))
	text, _ := json.Marshal(job.Result)
	var r control.Rewrapped
	if err := json.Unmarshal(text, &r); err != nil || r.Uses != 5 || r.Disks != 2 || r.Rewrapped != 5 || len(r.Failed) != 0 || job.Done != 5 {
		t.Fatalf("%+v ends with %s", job, text)
	}
	if left := usesOfKey(t, d, "a"); len(left) != 0 {
		t.Errorf("still under a: %v", left)
	}
	for verb, n := range map[string]int{"disk rewrap": 2, "snapshot rewrap": 1, "image rewrap": 1, "backup rewrap": 1, "key rewrap": 1} {
		if got := d.recorded(t, verb, "ok"); got != n {
			t.Errorf("%s was recorded %d times", verb, got)
		}
	}
	mustAsk[control.Key](t, d, control.RouteKeyDisable, "a", "")
	mustAsk[control.Disk](t, d, control.RouteDiskCreate, "", `{"name":"of-s","from_snapshot":"s"}`)
}

// A project is not deleted while there is anything in it.
func TestProjectWithPointsStays(t *testing.T) {
	d := start(t)
	allKinds(t, d)
	must(t, d, control.RouteProjectCreate, `{"name":"shop"}`)
	must(t, d, control.RouteDiskCreate+"?project=shop", `{"name":"d","size":1048576,"encrypted":false}`)
	must(t, d, control.RouteImageCreate+"?project=shop", `{"name":"golden","disk":"d"}`)
	must(t, d, "DELETE /v1/disks/d?yes=true&project=shop", "")
	said := refused(t, d, refusal.Busy, "DELETE /v1/projects/{project}?yes=true", "shop", "")
	if !strings.Contains(said.Message, "golden") || !strings.Contains(said.Hint, "image list") {
		t.Error(said)
	}
	must(t, d, "DELETE /v1/images/golden?yes=true&project=shop", "")
	must(t, d, "DELETE /v1/projects/shop?yes=true", "")
}
