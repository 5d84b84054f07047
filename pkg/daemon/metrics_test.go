package daemon

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"nbdcrypt/nbd"
	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// families are the metrics of a scrape, as a scraper reads them.
type families map[string]*dto.MetricFamily

func parseMetrics(t *testing.T, text []byte) families {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	f, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%v in:\n%.2000s", err, text)
	}
	return f
}

// scrapeAt scrapes as curl does: at /metrics of a host that any connection leads to.
func scrapeAt(t *testing.T, network, address string) (int, []byte) {
	t.Helper()
	return scrapeFor(t, network, address, "localhost")
}

// scrapeFor asks there for a host of that name.
func scrapeFor(t *testing.T, network, address, host string) (int, []byte) {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	answer, err := (&http.Client{Transport: transport}).Get("http://" + host + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, body
}

// find returns the one metric of a name with these labels, nil where there is none.
func (f families) find(name string, labels ...string) *dto.Metric {
	for _, m := range f[name].GetMetric() {
		var got []string
		for _, l := range m.GetLabel() {
			got = append(got, l.GetName()+"="+l.GetValue())
		}
		if strings.Join(got, " ") == strings.Join(labels, " ") {
			return m
		}
	}
	return nil
}

// value is a counter or a gauge that must be there.
func (f families) value(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	m := f.find(name, labels...)
	if m == nil {
		t.Fatalf("no %s %v", name, labels)
	}
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}

// attachNew makes a disk and attaches it.
func attachNew(t *testing.T, o Options, name string, encrypted bool) (uri string) {
	t.Helper()
	c := client(o)
	if _, err := c.GrantCreate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.DiskCreate(t.Context(), control.DiskCreate{Name: name, Size: 1 << 20, Encrypted: &encrypted}); err != nil {
		t.Fatal(err)
	}
	at, err := c.Attach(t.Context(), name, control.Attach{})
	if err != nil {
		t.Fatal(err)
	}
	return at.URI
}

// Each latency is in the first bucket that it fits, and in all above.
func TestMetricsBuckets(t *testing.T) {
	var of nbd.CommandStats
	for i := range of.Latency {
		of.Latency[i] = 1 << i
	}
	count, buckets := cumulative(of)
	for bound, want := range map[float64]uint64{8e-6: 1<<4 - 1, 16e-6: 1<<5 - 1, 4096e-6: 1<<13 - 1, 16384e-6: 1<<15 - 1, 16.777216: 1<<25 - 1} {
		if got, is := buckets[bound]; !is || got != want {
			t.Errorf("up to %v s there are %d, want %d", bound, got, want)
		}
	}
	if want := uint64(1)<<len(of.Latency) - 1; count != want || len(buckets) != 16 {
		t.Errorf("%d in %d buckets, want %d", count, len(buckets), want)
	}
}

// Names, units and help follow Prometheus' conventions.
func TestMetricsLint(t *testing.T) {
	d := start(t)
	problems, err := testutil.GatherAndLint(newRegistry(d))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// docs/cli.md names every metric of ours.
func TestMetricsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	descs := make(chan *prometheus.Desc, 100)
	collector{}.Describe(descs)
	close(descs)
	for desc := range descs {
		_, name, _ := strings.Cut(desc.String(), `fqName: "nbdcrypt_`)
		name, _, _ = strings.Cut(name, `"`)
		if name == "" || !bytes.Contains(page, []byte("`"+name+"`")) {
			t.Errorf("docs/cli.md does not name %v", desc)
		}
	}
}

// Metrics name disks: who may list disks may scrape. Where nobody's roles can be read yet root may, and gets what there is.
func TestMetricsRights(t *testing.T) {
	d := start(t)
	role := access.Holding{UID: 4321, User: "prometheus", Project: access.DefaultProject, Role: access.Auditor}
	if _, err := d.access.Grant(t.Context(), newRequest(), d.self, role); err != nil {
		t.Fatal(err)
	}
	for uid, want := range map[uint32]int{0: http.StatusOK, 4321: http.StatusOK, 65534: http.StatusForbidden} {
		if status, body := d.call(t, control.RouteMetrics, nbd.Peer{UID: uid}, ""); status != want {
			t.Errorf("user %d gets %d: %.200s", uid, status, body)
		}
	}
	o, _ := lockedStore(t)
	run(t, o)
	_, text := scrapeAt(t, "unix", filepath.Join(o.Run, control.SocketControl))
	f := parseMetrics(t, text)
	if f.value(t, "nbdcrypt_root_key_locked") != 1 || f.find("nbdcrypt_pool_free_bytes") != nil {
		t.Error("a locked store is not told")
	}
}

// A scrape waits for nobody who opens, locks or detaches, and is no record in the log.
func TestMetricsWaitForNothing(t *testing.T) {
	d := start(t)
	before := d.log.Head().Seq
	d.opening.Lock()
	defer d.opening.Unlock()
	for range 3 {
		status, body := d.call(t, control.RouteMetrics, nbd.Peer{}, "")
		if status != http.StatusOK || !strings.Contains(body, "nbdcrypt_nbd_exports 0") {
			t.Fatalf("%d: %.200s", status, body)
		}
	}
	if d.log.Head().Seq != before {
		t.Error("scrapes are recorded")
	}
}

func TestMetricsOfAThousandExports(t *testing.T) {
	d := start(t)
	for _, body := range []string{`{"name":"one","size":1048576}`} {
		if status, text := d.call(t, control.RouteDiskCreate, nbd.Peer{}, body); status != http.StatusOK {
			t.Fatal(text)
		}
	}
	if status, text := d.call(t, "POST /v1/disks/one/attach", nbd.Peer{}, "{}"); status != http.StatusOK {
		t.Fatal(text)
	}
	device := d.attachments()[0].Device
	for i := range 999 {
		a := &volume.Attachment{Name: fmt.Sprintf("disk%03d", i), Project: access.DefaultProject, Stack: &volume.Stack{Device: device}}
		a.Disk[0], a.Disk[1] = byte(i), byte(i>>8)
		d.exports.add(a, opening{})
	}
	began := time.Now()
	_, body := d.call(t, control.RouteMetrics, nbd.Peer{}, "")
	took := time.Since(began)
	f := parseMetrics(t, []byte(body))
	if n := len(f["nbdcrypt_nbd_requests_total"].GetMetric()); n != 7000 {
		t.Errorf("%d series of requests after %v", n, took)
	}
	t.Logf("%d bytes in %v", len(body), took)
}

// --metrics tells the same on an address of its own, and nothing but metrics.
func TestMetricsListener(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	unix := options(t)
	path := filepath.Join(filepath.Dir(unix.State), "metrics.sock")
	unix.Metrics = "unix:" + path
	tcp := options(t)
	tcp.Metrics = free.Addr().String()
	for network, o := range map[string]Options{"unix": unix, "tcp": tcp} {
		stop := run(t, o)
		address := strings.TrimPrefix(o.Metrics, "unix:")
		status, text := scrapeAt(t, network, address)
		if parseMetrics(t, text).value(t, "nbdcrypt_nbd_exports") != 0 || status != http.StatusOK {
			t.Errorf("%s: %d", network, status)
		}
		nc, err := net.Dial(network, address)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(nc, "GET /v1/status HTTP/1.0\r\n\r\n")
		if answer, _ := io.ReadAll(nc); !bytes.HasPrefix(answer, []byte("HTTP/1.0 404 ")) {
			t.Errorf("%s: status is answered with %.100q", network, answer)
		}
		// A web page whose name points here does not read it; over a unix socket there is no browser.
		for host, status := range map[string]int{"localhost:9": 200, "127.0.0.1:9": 200, "[::1]:9": 200, "web.example": 421, "127.0.0.1.web.example:9": 421} {
			if network == "unix" {
				status = 200
			}
			if got, _ := scrapeFor(t, network, address, host); got != status {
				t.Errorf("%s: for %s it answers %d", network, host, got)
			}
		}
		if info, err := os.Stat(path); network == "unix" && (err != nil || info.Mode().Perm() != 0o660) {
			t.Errorf("the socket: %v, %v", info.Mode(), err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if _, err := net.Dial(network, address); err == nil {
			t.Errorf("%s: it listens after the end", network)
		}
	}
}

// What other machines could reach is refused, and what is taken already.
func TestMetricsAddresses(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	old := syscall.Umask(0o022)
	defer syscall.Umask(old)
	for at, code := range map[string]refusal.Code{
		":9100": refusal.Usage, "0.0.0.0:9100": refusal.Usage, "[::]:9100": refusal.Usage, "192.0.2.1:9100": refusal.Usage, "9100": refusal.Usage,
		"unix:": refusal.Usage, "127.0.0.1": refusal.Usage, taken.Addr().String(): refusal.Failed, "unix:" + dir + "/file": refusal.Failed,
		"unix:/nonexistent/x": refusal.Failed,
	} {
		l, err := listenMetrics(at)
		if refusal.CodeOf(err) != code || refusal.From(err).Hint == "" {
			t.Errorf("%q: %v", at, err)
		}
		if l != nil {
			l.Close()
		}
	}
}
