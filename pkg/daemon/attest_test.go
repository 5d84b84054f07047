package daemon

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nbdcrypt/nbd"
	"nbdcrypt/pkg/attest"
	"nbdcrypt/pkg/audit"
	"nbdcrypt/pkg/control"
)

// attached has an encrypted disk "vol" attached.
func attached(t *testing.T) *Daemon {
	t.Helper()
	d := start(t)
	for _, c := range [][2]string{
		{control.RouteDiskCreate, `{"name":"vol","size":1048576,"encrypted":true}`}, {"POST /v1/disks/vol/attach", "{}"},
	} {
		if status, body := d.call(t, c[0], nbd.Peer{}, c[1]); status != http.StatusOK {
			t.Fatalf("%s: %d %s", c[0], status, body)
		}
	}
	return d
}

// detachAttested detaches "vol" and waits for the job's end.
func (d *Daemon) detachAttested(t *testing.T) control.Job {
	t.Helper()
	status, body := d.call(t, "POST /v1/disks/vol/detach?attest=true", nbd.Peer{}, "")
	var job control.Job
	if err := json.Unmarshal([]byte(body), &job); err != nil || status != http.StatusAccepted || job.Verb != "attest" || job.Resource != "vol" {
		t.Fatalf("%d %s", status, body)
	}
	for job.State == control.JobRunning {
		var err error
		if job, err = d.jobs.Get(t.Context(), job.ID, job.Revision, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	return job
}

// attestRecords are the audit's records of searches.
func (d *Daemon) attestRecords(t *testing.T) (found []audit.Record) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(d.o.State, "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var r audit.Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		if r.Verb == "attest" {
			found = append(found, r)
		}
	}
	return found
}

func TestRuleA13_DetachIsAttested(t *testing.T) {
	d := attached(t)
	warned := len(d.allWarnings())
	job := d.detachAttested(t)
	gone, is := job.Result.(control.Detached)
	if !is || gone.Disk != "vol" || gone.Attest == nil || gone.Attest.Bytes == 0 || gone.Attest.Found != 0 {
		t.Errorf("%+v", job)
	}
	if r := d.attestRecords(t); len(r) != 1 || r[0].Outcome != audit.OK || r[0].Message != "" {
		t.Errorf("%+v", r)
	}
	if w := d.allWarnings(); len(w) != warned {
		t.Errorf("warnings: %q", w)
	}
}

// TestRuleA13_WhatIsFoundIsTold, and so is a search that could show nothing.
func TestRuleA13_WhatIsFoundIsTold(t *testing.T) {
	d := attached(t)
	w := &wipe{daemon: d, call: &call{ctx: t.Context(), caller: d.self}, disk: "default/vol", id: "the-id"}
	hit := attest.Hit{What: "round key 0 of the tweak key", Layer: "layer", Region: "the Go heap", Address: 0xc000}
	w.searched(attest.Report{Found: 3, Hits: []attest.Hit{hit, {Region: "[stack]"}, hit}}, nil)
	w.searched(attest.Report{}, errors.New("the search is blind"))
	for i, want := range []string{"default/vol was wiped, but is still found in memory, at 3 places: the Go heap, [stack]", "default/vol is left in memory: the search is blind"} {
		r := d.attestRecords(t)[i]
		if r.Outcome != audit.Refused || r.Code != 1 || r.Resource != "the-id" || !strings.HasSuffix(r.Message, want) {
			t.Errorf("the audit has %+v", r)
		}
		if all := strings.Join(d.allWarnings(), "\n"); !strings.Contains(all, want+"; restart the daemon") {
			t.Errorf("warnings: %s", all)
		}
	}
}

// A daemon that stops does not search first: its memory goes with it. Who waits is told.
func TestStopDropsTheSearch(t *testing.T) {
	d := attached(t)
	d.attests.Close()
	job := d.detachAttested(t)
	if job.State != control.JobFailed || !strings.Contains(job.Error.Message, "vol is detached, and its attest was dropped") {
		t.Errorf("%+v, %+v", job, job.Error)
	}
	if r := d.attestRecords(t); len(r) != 0 {
		t.Errorf("the audit has %+v", r)
	}
}

// A detach that nobody waits for answers at once, and has its record later; one of a plain disk has none.
func TestDetachDoesNotWait(t *testing.T) {
	d := attached(t)
	if status, body := d.call(t, "POST /v1/disks/vol/detach", nbd.Peer{}, ""); status != http.StatusOK || strings.Contains(body, "attest") {
		t.Errorf("%d %s", status, body)
	}
	for end := time.Now().Add(time.Minute); len(d.attestRecords(t)) != 1; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no record of the search")
		}
	}
	d.call(t, control.RouteDiskCreate, nbd.Peer{}, `{"name":"plain","size":1048576}`)
	d.call(t, "POST /v1/disks/plain/attach", nbd.Peer{}, "{}")
	if status, body := d.call(t, "POST /v1/disks/plain/detach?attest=true", nbd.Peer{}, ""); status != http.StatusOK || strings.Contains(body, "attest") {
		t.Errorf("a plain disk: %d %s", status, body)
	}
}
