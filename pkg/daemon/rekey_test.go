package daemon

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"nbdcrypt/nbd"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/refusal"
)

// jobOf makes a call that is answered with a job, and waits for its end.
func jobOf[T any](t *testing.T, d *Daemon, route, body string) (out T, job control.Job) {
	t.Helper()
	status, text := d.call(t, route, nbd.Peer{}, body)
	if status != http.StatusAccepted {
		t.Fatalf("%s: %d %s", route, status, text)
	}
	job = d.awaitJob(t, text)
	result, err := json.Marshal(job.Result)
	if err == nil {
		err = json.Unmarshal(result, &out)
	}
	if err != nil || job.Error != nil {
		t.Fatalf("%s: %v %+v", route, err, job.Error)
	}
	return out, job
}

func showDisk(t *testing.T, d *Daemon, name string) control.Disk {
	t.Helper()
	return mustAsk[control.Disk](t, d, control.RouteDiskShow, name, "")
}

// Rule C15 at the daemon: the answer is the disk, with another layer, and warns who keeps the old key. What it takes is told.
func TestRuleC15_RekeyAnswers(t *testing.T) {
	d := start(t)
	must(t, d, control.RouteDiskCreate, `{"name":"vault","size":1048576,"encrypted":true}`)
	must(t, d, "POST /v1/disks/vault/attach", "{}")
	if _, err := d.volumes.Attachments()[0].Device.WriteAt(make([]byte, 8192), 0); err != nil {
		t.Fatal(err)
	}
	before := showDisk(t, d, "vault")
	must(t, d, control.RouteSnapshotCreate, `{"name":"before","disk":"vault"}`)
	after, job := jobOf[control.Disk](t, d, "POST /v1/disks/vault/rekey", "")
	if job.Verb != "disk rekey" || job.Unit != "bytes" || len(after.Layers) != 1 || after.Layers[0].ID == before.Layers[0].ID {
		t.Errorf("%+v %+v", job, after)
	}
	if len(after.Warnings) != 1 || !strings.Contains(after.Warnings[0], "snapshot before") {
		t.Errorf("%v", after.Warnings)
	}
	if after.Space == nil || *after.Space != (control.DiskSpace{Written: 8192}) {
		t.Errorf("%+v", after.Space)
	}
	refused(t, d, refusal.Confirm, "DELETE /v1/snapshots/{snapshot}", "before", "")
	if gone, _ := jobOf[control.SnapshotDeleted](t, d, "DELETE /v1/snapshots/before?yes=true", ""); len(gone.Warnings) > 0 {
		t.Errorf("%+v", gone)
	}
	if layers, err := filepath.Glob(filepath.Join(d.o.Pool, "*")); err != nil || len(layers) != 1 {
		t.Errorf("layers in the pool: %v %v", layers, err)
	}
	refused(t, d, refusal.NotFound, "DELETE /v1/snapshots/{snapshot}", "before", "")
}

// A full copy is filled in the background, which is recorded once, with the key that it took.
func TestFullCopiesAreFilled(t *testing.T) {
	d := start(t)
	d.watching.Go(d.doChores)
	must(t, d, control.RouteDiskCreate, `{"name":"vault","size":1048576,"encrypted":true}`)
	must(t, d, "POST /v1/disks/vault/attach", "{}")
	if _, err := d.volumes.Attachments()[0].Device.WriteAt([]byte("known"), 0); err != nil {
		t.Fatal(err)
	}
	must(t, d, control.RouteSnapshotCreate, `{"name":"before","disk":"vault"}`)
	must(t, d, control.RouteDiskCreate, `{"name":"twin","from_snapshot":"before","full":true}`)
	eventually(t, "the copy is full", func() bool { return len(showDisk(t, d, "twin").Layers) == 1 })
	records := func() (verbs []string) {
		for _, r := range d.records(t) {
			if r.Verb == "disk.filled" || r.Verb == "key.released" {
				verbs = append(verbs, r.Verb)
			}
		}
		return verbs
	}
	eventually(t, "it is recorded", func() bool { return len(records()) >= 2 })
	if verbs := records(); len(verbs) != 2 {
		t.Errorf("records %v", verbs)
	}
}

// A pool that fills up is told once to the hook, and to status and disk show for as long as it is so.
func TestPoolFillingIsTold(t *testing.T) {
	d, out, _ := startHooked(t, `cat >OUT/$NBDCRYPT_EVENT.$$`)
	must(t, d, control.RouteDiskCreate, `{"name":"plain","size":1048576}`)
	told := func() (n int) {
		list, _ := filepath.Glob(filepath.Join(out, eventPoolFilling+".*"))
		return len(list)
	}
	look := func(free int64, err error) {
		t.Helper()
		d.dueMu.Lock()
		defer d.dueMu.Unlock()
		d.space = func() (pool.Space, error) { return pool.Space{Total: 1000, Free: free}, err }
		d.lookAtPool()
	}
	look(100, nil)
	look(0, syscall.EIO)
	if warnings := showDisk(t, d, "plain").Warnings; len(warnings) > 0 {
		t.Errorf("%v", warnings)
	}
	look(99, nil)
	look(98, nil)
	look(101, nil) // hardly any more
	look(99, nil)
	eventually(t, "the hook is told", func() bool { return told() == 1 })
	if warnings := showDisk(t, d, "plain").Warnings; len(warnings) != 1 || !strings.Contains(warnings[0], "fills up") {
		t.Errorf("%v", warnings)
	}
	if warnings := strings.Join(d.allWarnings(), "\n"); !strings.Contains(warnings, "fills up") {
		t.Error(warnings)
	}
	look(500, nil)
	look(99, nil)
	eventually(t, "the hook is told again", func() bool { return told() == 2 })
}

// A detach says of a re-key that it is not done, and the next attach goes on with it by itself; so does the next start.
func TestRekeyGoesOnAfterDetachAndStart(t *testing.T) {
	o := options(t)
	d := startWith(t, o)
	must(t, d, control.RouteDiskCreate, `{"name":"vault","size":67108864,"encrypted":true}`)
	must(t, d, "POST /v1/disks/vault/attach", "{}")
	data := make([]byte, 1<<20)
	for off := int64(0); off < 64<<20; off += 1 << 20 {
		if _, err := d.volumes.Attachments()[0].Device.WriteAt(data, off); err != nil {
			t.Fatal(err)
		}
	}
	running := func() bool {
		return slices.ContainsFunc(d.jobs.List(), func(j control.Job) bool { return j.State == control.JobRunning })
	}
	cutOff := func() {
		t.Helper()
		for range 20 { // it may be done before the detach comes
			status, job := d.call(t, "POST /v1/disks/vault/rekey", nbd.Peer{}, "")
			if status != http.StatusAccepted {
				t.Fatalf("%d %s", status, job)
			}
			eventually(t, "it has begun", func() bool { return len(showDisk(t, d, "vault").Layers) == 2 || !running() })
			var out control.Detached
			eventually(t, "it is detached", func() bool {
				status, detached := asks[control.Detached](t, d, control.RouteDetach, "vault", "") // busy for the moment of its last commit
				out = detached
				return status == http.StatusOK
			})
			if ended := d.awaitJob(t, job); ended.Error == nil {
				must(t, d, "POST /v1/disks/vault/attach", "{}")
				continue
			}
			if len(out.Warnings) != 1 || !strings.Contains(out.Warnings[0], "disk rekey vault") {
				t.Errorf("%v", out.Warnings)
			}
			return
		}
		t.Fatal("each re-key was done before its detach")
	}
	cutOff()
	d.watching.Go(d.doChores)
	must(t, d, "POST /v1/disks/vault/attach", "{}")
	eventually(t, "the attach goes on with it", func() bool { return len(showDisk(t, d, "vault").Layers) == 1 })
	cutOff()
	_ = d.jobs.Shutdown(t.Context())
	d.close()
	d = newDaemon(o)
	t.Cleanup(d.close)
	if err := d.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.watching.Go(d.doChores)
	eventually(t, "the start goes on with it", func() bool { return len(showDisk(t, d, "vault").Layers) == 1 })
}
