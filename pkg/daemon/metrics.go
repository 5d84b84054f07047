package daemon

import (
	"math"
	"net/http"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"nbdcrypt/nbd"
	"nbdcrypt/pkg/secret"
	"nbdcrypt/pkg/volume"
)

// maxScrapes is how many scrapes are answered at a time: each holds all series in memory until it is sent.
// scrapeTime is what the reader of one may take.
const (
	maxScrapes = 4
	scrapeTime = 10 * time.Second
)

// collector makes metrics of what the daemon counts anyway. It looks at counters and takes no lock that I/O or a call holds for longer
// than a moment.
type collector struct {
	daemon *Daemon
	// project is whose disks are told of, and nothing of the daemon as a whole; empty for all of it.
	project string
}

// metrics answers a scrape: with everything to who sees all projects, else with the project's.
func (d *Daemon) metrics(c *call) (any, error) {
	all, err := d.seesAll(c)
	if err != nil || all {
		return d.scrape, err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{d, c.project})
	return d.scrapeOf(registry), nil
}

// newRegistry gathers ours with those of the process and of Go's runtime. The constructors of package prometheus are marked as old,
// but those in package collectors would bring database/sql into the program.
func newRegistry(d *Daemon) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{daemon: d}, prometheus.NewGoCollector(), prometheus.NewProcessCollector(prometheus.ProcessCollectorOpts{}))
	return registry
}

// newScrape makes the handler that answers a scrape.
func newScrape(d *Daemon) http.Handler { return d.scrapeOf(newRegistry(d)) }

func (d *Daemon) scrapeOf(registry *prometheus.Registry) http.Handler {
	answer := promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case d.scrapes <- struct{}{}:
			defer func() { <-d.scrapes }()
		default:
			http.Error(w, "too many scrapes at a time; try again", http.StatusServiceUnavailable)
			return
		}
		// Who does not read must not keep the others from their turn. What is no connection needs no deadline.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(scrapeTime))
		answer.ServeHTTP(w, r)
	})
}

// describe names one of our metrics.
func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("nbdcrypt_"+name, help, labels, nil)
}

// What is counted of a disk begins with its attach and ends with its detach: a rate over both is right, since a counter that
// starts again counts as a reset.
const sinceAttach = " since the disk was attached; gone with its detach."

var (
	requestsDesc = describe("nbd_requests_total", "NBD requests answered"+sinceAttach, "project", "disk", "command")
	errorsDesc   = describe("nbd_request_errors_total", "NBD requests answered with an error"+sinceAttach, "project", "disk", "command")
	bytesDesc    = describe("nbd_request_bytes_total",
		"Bytes of payload read or written, or of the range, of NBD requests without an error"+sinceAttach, "project", "disk", "command")
	durationDesc = describe("nbd_request_duration_seconds",
		"Time from an NBD request read whole to its answer, of commands seen"+sinceAttach, "project", "disk", "command")
	inFlightDesc    = describe("nbd_requests_in_flight", "NBD requests read and not answered yet.", "project", "disk")
	connectionsDesc = describe("nbd_connections", "NBD connections that have the disk open.", "project", "disk")
	failedDesc      = describe("disk_sync_failed", "1 where a sync failed: nothing more is written to the disk until it is detached.", "project", "disk")
	sharesDesc      = describe("disk_attachments", "Attachments of a disk: more than one where it is shared.", "project", "disk")
	depthDesc       = describe("disk_layers", "Layers that an attached disk stands on.", "project", "disk")
	serversDesc     = describe("servers", "Servers whose disks are attached for a run.")
	pointsDesc      = describe("points", "Snapshots, images and backups, by kind.", "kind")
	exportsDesc     = describe("nbd_exports", "Disks that NBD clients can open.")
	attachedDesc    = describe("disks_attached", "Disks attached by this daemon.")
	keysDesc        = describe("keys_in_memory", "Keys in memory, by kind.", "kind")
	usedDesc        = describe("key_memory_used_bytes", "Key memory that keys lie in.")
	lockedDesc      = describe("key_memory_locked_bytes", "Key memory that keys lie in or that is kept for more.")
	limitDesc       = describe("key_memory_limit_bytes", "Key memory that the daemon may lock; +Inf where nothing limits it.")
	poolFreeDesc    = describe("pool_free_bytes", "Free space of the pool's file system.")
	poolSizeDesc    = describe("pool_size_bytes", "Size of the pool's file system.")
	rootLockedDesc  = describe("root_key_locked", "1 while the root key is locked.")
	refusedDesc     = describe("unwraps_refused_total", "Attaches, starts of servers, escrows, exports, re-wraps and new disks that a key or rights forbade, since the start.")
	unauditedDesc   = describe("audit_failures_total", "Audit records that could not be written, since the start.")
	warningsDesc    = describe("warnings", "Warnings that `nbdcrypt status` shows.")
	buildDesc       = describe("build_info", "1, with the build in the labels.", "version", "goversion")
)

// Describe implements prometheus.Collector.
func (c collector) Describe(to chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{requestsDesc, errorsDesc, bytesDesc, durationDesc, inFlightDesc, connectionsDesc, failedDesc,
		sharesDesc, depthDesc, serversDesc, pointsDesc, exportsDesc, attachedDesc, keysDesc, usedDesc, lockedDesc, limitDesc, poolFreeDesc, poolSizeDesc, rootLockedDesc, refusedDesc, unauditedDesc, warningsDesc, buildDesc} {
		to <- desc
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(to chan<- prometheus.Metric) {
	d := c.daemon
	exports := slices.DeleteFunc(d.exports.all(), func(e *exported) bool { return c.project != "" && e.of.Project != c.project })
	for _, e := range exports {
		collectExport(to, e)
	}
	gauge(to, exportsDesc, float64(len(exports)))
	attached := d.attachedIn(c.project)
	gauge(to, attachedDesc, float64(len(attached)))
	for _, a := range attached {
		gauge(to, sharesDesc, float64(len(d.volumes.SharesOf(a))), a.Project, a.Name)
		gauge(to, depthDesc, float64(a.Depth()), a.Project, a.Name)
	}
	gauge(to, serversDesc, float64(d.leases.running(c.project)))
	c.collectPoints(to)
	if c.project == "" {
		c.collectWhole(to)
	}
}

func (c collector) collectPoints(to chan<- prometheus.Metric) {
	if !c.daemon.isOpen.Load() {
		return
	}
	for _, kind := range volume.PointKinds {
		if n, err := c.daemon.volumes.CountPoints(c.daemon.life, kind, c.project); err == nil {
			gauge(to, pointsDesc, float64(n), kind)
		}
	}
}

// collectWhole tells what is no project's.
func (c collector) collectWhole(to chan<- prometheus.Metric) {
	d := c.daemon
	gauge(to, rootLockedDesc, boolean(d.since() != nil))
	to <- prometheus.MustNewConstMetric(refusedDesc, prometheus.CounterValue, float64(d.refusedUnwraps.Load()))
	to <- prometheus.MustNewConstMetric(unauditedDesc, prometheus.CounterValue, float64(d.auditFailures.Load()))
	gauge(to, warningsDesc, float64(len(d.allWarnings())))
	gauge(to, buildDesc, 1, d.o.Version, runtime.Version())
	collectKeys(to)
	if !d.isOpen.Load() {
		return
	}
	if space, err := d.pool.Space(); err == nil {
		gauge(to, poolFreeDesc, float64(space.Free))
		gauge(to, poolSizeDesc, float64(space.Total))
	}
}

func gauge(to chan<- prometheus.Metric, desc *prometheus.Desc, value float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
}

func boolean(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// collectKeys tells of kinds of keys, never of what a key is for.
func collectKeys(to chan<- prometheus.Metric) {
	memory, keys := secret.Snapshot()
	kinds := map[string]int{}
	for _, k := range keys {
		kinds[k.Kind]++
	}
	for kind, n := range kinds {
		gauge(to, keysDesc, float64(n), kind)
	}
	limit := float64(memory.Limit)
	if memory.Limit == 0 {
		limit = math.Inf(1)
	}
	gauge(to, usedDesc, float64(memory.Used))
	gauge(to, lockedDesc, float64(memory.Locked))
	gauge(to, limitDesc, limit)
}

func collectExport(to chan<- prometheus.Metric, e *exported) {
	project, disk := e.of.Project, e.of.Name
	stats := e.export.Stats()
	gauge(to, inFlightDesc, float64(stats.InFlight), project, disk)
	gauge(to, connectionsDesc, float64(stats.Clients), project, disk)
	gauge(to, failedDesc, boolean(e.of.Device.Failed() != nil), project, disk)
	for _, command := range stats.Commands {
		collectCommand(to, command, project, disk, command.Name)
	}
}

func collectCommand(to chan<- prometheus.Metric, of nbd.CommandStats, labels ...string) {
	counter := func(desc *prometheus.Desc, n uint64) {
		to <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n), labels...)
	}
	counter(requestsDesc, of.Requests)
	counter(errorsDesc, of.Errors)
	counter(bytesDesc, of.Bytes)
	if of.Requests > 0 { // most series of an idle disk would be its empty buckets
		count, buckets := cumulative(of)
		to <- prometheus.MustNewConstHistogram(durationDesc, count, of.Seconds, buckets, labels...)
	}
}

// cumulative adds up the buckets of a command. All that the server keeps would be more than a scrape of a thousand disks needs: every power of
// two from 8 µs to 4 ms is shown, and every other one up to 17 s.
func cumulative(of nbd.CommandStats) (count uint64, buckets map[float64]uint64) {
	buckets = make(map[float64]uint64, 16)
	for i, n := range of.Latency {
		count += n
		if i >= 3 && i <= 12 || i > 12 && i%2 == 0 {
			buckets[nbd.LatencyBound(i)] = count
		}
	}
	return count, buckets
}
