package daemon

import (
	"bytes"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"nbdcrypt/nbd/nbdclient"
	"nbdcrypt/pkg/control"
)

// What a client did is what a scrape of the control socket tells, by disk and command, and goes with the detach.
func TestMetricsCountRequests(t *testing.T) {
	o := options(t)
	o.Version = "v1.2.3"
	run(t, o)
	socket := filepath.Join(o.Run, control.SocketControl)
	nc, err := nbdclient.Dial(t.Context(), attachNew(t, o, "vault", true))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Disconnect()
	for i := range 5 {
		if _, err := nc.WriteAt(make([]byte, 1000), int64(i)*3000); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := nc.WriteAt(make([]byte, 512), 1<<20); err == nil {
		t.Fatal("a write past the end was taken")
	}
	if _, err := client(o).SnapshotCreate(t.Context(), control.SnapshotCreate{Name: "before", Disk: "vault"}); err != nil {
		t.Fatal(err)
	}
	f, text := scrapeIdle(t, socket)
	writes := []string{"command=write", "disk=vault", "project=default"}
	for name, want := range map[string]float64{"requests_total": 6, "request_errors_total": 1, "request_bytes_total": 5000} {
		if got := f.value(t, "nbdcrypt_nbd_"+name, writes...); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if got := f.value(t, "nbdcrypt_nbd_requests_total", "command=flush", "disk=vault", "project=default"); got != 1 {
		t.Errorf("%v flushes", got)
	}
	expectHistogram(t, f.find("nbdcrypt_nbd_request_duration_seconds", writes...).GetHistogram(), 6)
	if f.find("nbdcrypt_nbd_request_duration_seconds", "command=read", "disk=vault", "project=default") != nil {
		t.Error("a command that nobody sent has a histogram")
	}
	for name, want := range map[string]float64{"nbd_connections": 1, "nbd_requests_in_flight": 0, "disk_sync_failed": 0, "disk_attachments": 1, "disk_layers": 2} {
		if got := f.value(t, "nbdcrypt_"+name, writes[1:]...); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	for name, want := range map[string]float64{"nbd_exports": 1, "disks_attached": 1, "root_key_locked": 0} {
		if got := f.value(t, "nbdcrypt_"+name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	for kind, want := range map[string]float64{"snapshot": 1, "image": 0, "backup": 0} {
		if got := f.value(t, "nbdcrypt_points", "kind="+kind); got != want {
			t.Errorf("%v points are %ss, want %v", got, kind, want)
		}
	}
	if f.value(t, "nbdcrypt_keys_in_memory", "kind=dek") < 1 || f.value(t, "nbdcrypt_key_memory_used_bytes") < 512 {
		t.Error("no key is in memory")
	}
	if free := f.value(t, "nbdcrypt_pool_free_bytes"); free <= 0 || free > f.value(t, "nbdcrypt_pool_size_bytes") {
		t.Errorf("%v bytes of the pool are free", free)
	}
	if f.find("nbdcrypt_build_info") != nil || !bytes.Contains(text, []byte(`version="v1.2.3"`)) {
		t.Error("the build is not told")
	}
	if f.value(t, "process_open_fds") < 3 || f.value(t, "go_goroutines") < 1 {
		t.Error("nothing of the process is told")
	}
	if _, err := client(o).Detach(t.Context(), "vault", false); err != nil {
		t.Fatal(err)
	}
	_, text = scrapeAt(t, "unix", socket)
	if bytes.Contains(text, []byte(`"vault"`)) {
		t.Error("metrics of a disk outlive its attachment")
	}
}

// scrapeIdle scrapes once nothing is in flight: a request is counted when its answer has been sent, and the client may be faster.
func scrapeIdle(t *testing.T, socket string) (families, []byte) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; {
		status, text := scrapeAt(t, "unix", socket)
		if status != http.StatusOK {
			t.Fatalf("status %d: %s", status, text)
		}
		f := parseMetrics(t, text)
		if f.value(t, "nbdcrypt_nbd_requests_in_flight", "disk=vault", "project=default") == 0 || time.Now().After(end) {
			return f, text
		}
	}
}

// expectHistogram checks that a histogram counts n requests, and that its buckets add up.
func expectHistogram(t *testing.T, h *dto.Histogram, n uint64) {
	t.Helper()
	if h.GetSampleCount() != n || h.GetSampleSum() <= 0 {
		t.Errorf("%d samples of %v s, want %d", h.GetSampleCount(), h.GetSampleSum(), n)
	}
	before, bound := uint64(0), 0.0
	for _, b := range h.GetBucket() {
		if b.GetCumulativeCount() < before || b.GetCumulativeCount() > n || b.GetUpperBound() <= bound {
			t.Errorf("bucket %v holds %d after %d", b.GetUpperBound(), b.GetCumulativeCount(), before)
		}
		before, bound = b.GetCumulativeCount(), b.GetUpperBound()
	}
	if len(h.GetBucket()) != 17 || before != n {
		t.Errorf("%d buckets, the last with %d", len(h.GetBucket()), before)
	}
}
