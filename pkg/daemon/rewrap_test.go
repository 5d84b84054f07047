package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"nbdcrypt/nbd"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// underA makes keys a and b, and some disks under a.
func underA(t *testing.T, d *Daemon, disks int) (ids []string) {
	t.Helper()
	for _, key := range []string{"a", "b"} {
		mustAsk[control.Key](t, d, control.RouteKeyCreate, "", fmt.Sprintf(`{"alias":%q}`, key))
	}
	for i := range disks {
		disk := mustAsk[control.Disk](t, d, control.RouteDiskCreate, "", fmt.Sprintf(`{"name":"d%d","size":1048576,"key":"a"}`, i))
		ids = append(ids, disk.ID)
	}
	return ids
}

func (d *Daemon) keyOf(t *testing.T, disk string) string {
	t.Helper()
	return mustAsk[control.Disk](t, d, control.RouteDiskShow, disk, "").Key.Alias
}

// ended waits for a job's end.
func (d *Daemon) ended(t *testing.T, j control.Job) control.Job {
	t.Helper()
	for j.State == control.JobRunning {
		var err error
		if j, err = d.jobs.Get(t.Context(), j.ID, j.Revision, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	return j
}

// Rule C5: all disks under a key move to another, attached ones too; one that can't is named and stays as it was. Each is recorded.
func TestRuleC5_RewrapAll(t *testing.T) {
	d := start(t)
	ids := underA(t, d, 3)
	mustAsk[control.Attached](t, d, control.RouteAttach, "d0", "{}")
	if err := damage(t, d, "dek/disk/"+ids[1]+"/"); err != nil {
		t.Fatal(err)
	}
	job := d.ended(t, mustAsk[control.Job](t, d, control.RouteKeyRewrap, "a", `{"to":"b"}`))
	text, _ := json.Marshal(job.Result)
	var r control.Rewrapped
	if err := json.Unmarshal(text, &r); err != nil || job.State != control.JobDone || job.Done != 3 || r.Disks != 3 || r.Rewrapped != 2 || len(r.Failed) != 1 ||
		r.Failed[0].Name != "d1" || r.Failed[0].Error.Code != int(refusal.Damaged) {
		t.Errorf("%+v ends with %s", job, text)
	}
	for i, want := range []string{"b", "a", "b"} {
		if got := d.keyOf(t, fmt.Sprint("d", i)); got != want {
			t.Errorf("disk %d is under %s", i, got)
		}
	}
	if d.recorded(t, "disk rewrap", "ok") != 2 || d.recorded(t, "disk rewrap", "refused") != 1 || d.recorded(t, "key rewrap", "ok") != 1 {
		t.Error("the audit log has other records")
	}
	// To its own newest version, which is a new one.
	mustAsk[control.Key](t, d, control.RouteKeyRotate, "b", "")
	job = d.ended(t, mustAsk[control.Job](t, d, control.RouteKeyRewrap, "b", "{}"))
	if got := fmt.Sprintf("%+v", job.Result); !strings.Contains(got, "Version:2 Disks:2 Uses:2 Rewrapped:2") {
		t.Errorf("%s", got)
	}
	mustAsk[control.Key](t, d, control.RouteKeyDisable, "a", "")
	for _, body := range []string{"{}", `{"to":"b"}`} {
		if status, _ := asks[control.Job](t, d, control.RouteKeyRewrap, "a", body); status != http.StatusLocked {
			t.Errorf("from a disabled key: %d", status)
		}
	}
	if status, _ := asks[control.Job](t, d, control.RouteKeyRewrap, "b", `{"to":"a"}`); status != http.StatusLocked {
		t.Errorf("to a disabled key: %d", status)
	}
}

// damage flips a bit of the first record under a prefix.
func damage(t *testing.T, d *Daemon, prefix string) error {
	t.Helper()
	return catalog.Commit(t.Context(), d.raw, newRequest(), func(txn catalog.Txn) error {
		pairs, err := txn.Scan(prefix, "", 1)
		if err != nil || len(pairs) != 1 {
			return errors.Join(err, fmt.Errorf("%d records under %s", len(pairs), prefix))
		}
		pairs[0].Value[20] ^= 1
		return txn.Put(pairs[0].Key, pairs[0].Value)
	})
}

// One that is cancelled, or whose key is disabled, stops between two disks; asked again it does the rest.
func TestRuleC5_RewrapStopsBetweenDisks(t *testing.T) {
	d := start(t)
	underA(t, d, 4)
	to, err := d.keys.Key(t.Context(), "default", "b")
	if err != nil {
		t.Fatal(err)
	}
	from, err := d.keys.Key(t.Context(), "default", "a")
	if err != nil {
		t.Fatal(err)
	}
	uses, err := d.usesOf(t.Context(), "default", "a")
	if err != nil || len(uses) != 4 {
		t.Fatal(uses, err)
	}
	c := &call{ctx: t.Context(), project: "default", request: newRequest()}
	ctx, cancel := context.WithCancel(t.Context())
	r := control.Rewrapped{}
	if err := d.rewrapAll(ctx, c, from, to, uses, &r, func(int64, int64) { cancel() }); !errors.Is(err, context.Canceled) || r.Rewrapped != 1 {
		t.Errorf("cancelled after one: %v, %+v", err, r)
	}
	r = control.Rewrapped{}
	err = d.rewrapAll(t.Context(), c, from, to, uses, &r, func(done, _ int64) {
		if done == 2 {
			mustAsk[control.Key](t, d, control.RouteKeyDisable, "b", "")
		}
	})
	if refusal.CodeOf(err) != refusal.KeyForbids || r.Rewrapped != 1 || !strings.Contains(err.Error(), "2 of 4 were") {
		t.Errorf("disabled after two: %v, %+v", err, r)
	}
	mustAsk[control.Key](t, d, control.RouteKeyEnable, "b", "")
	r = control.Rewrapped{}
	if err := d.rewrapAll(t.Context(), c, from, to, uses, &r, func(int64, int64) {}); err != nil || r.Rewrapped != 2 {
		t.Errorf("the rest: %v, %+v", err, r)
	}
}

// Rule B8: a grant of the disk's key is not enough to put it under another, which takes a grant of that.
func TestRuleB8_RewrapTakesAGrantOfTheNewKey(t *testing.T) {
	d := start(t)
	underA(t, d, 1)
	nobody := nbd.Peer{UID: 65534}
	rewrap := func() int {
		status, _ := d.call(t, "POST /v1/disks/d0/rewrap", nobody, `{"key":"b"}`)
		return status
	}
	for _, step := range []struct {
		grant string
		want  int
	}{{"", http.StatusForbidden}, {"a decrypt", http.StatusForbidden}, {"b decrypt", http.StatusForbidden}, {"b encrypt", http.StatusOK}} {
		if key, op, is := strings.Cut(step.grant, " "); is {
			mustAsk[control.KeyGrant](t, d, control.RouteKeyGrant, key, fmt.Sprintf(`{"user":"65534","operation":%q}`, op))
		}
		if got := rewrap(); got != step.want {
			t.Errorf("with %q it answers %d", step.grant, got)
		}
	}
}
