//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"nbdcrypt/nbd/nbdclient"
	"nbdcrypt/pkg/control"
)

// What an idle attachment and an idle connection may cost, what a connection may keep for the next request when it was used, how much
// longer attach and detach may take where many are attached (which says that they look at all; bench scale says what they take), and
// how many connections there may be.
const (
	attachmentMemory = 64 << 10
	connectionMemory = 32 << 10
	usedMemory       = 384 << 10 // about 96 KiB were seen on a quiet machine, and up to 278 on a busy one; wiping loans that were not used took 465
	attachTimes      = 10
	maxConnections   = 1024
)

// A thousand disks and a thousand connections, on a file system in memory and on the one of the temporary directory: it costs what
// it may, all works, and all ends under load. Not parallel, since it measures.
func TestThousandConnections(t *testing.T) {
	const n = 1000
	for site, dir := range map[string]string{"memory": "/dev/shm", "disk": os.TempDir()} {
		t.Run(site, func(t *testing.T) {
			d := daemonUnder(t, dir)
			d.create("probe", "1M", "--encrypted")
			d.createMany(n)
			alone := d.latency("with no other disk attached")

			before := d.settledMemory()
			d.attachMany(n)
			attached := d.settledMemory()
			d.bound("an idle attachment", (attached-before)/n, attachmentMemory)
			clients := d.connectMany(n)
			d.bound("an idle connection", (d.settledMemory()-attached)/n, connectionMemory)
			d.useAll(clients)
			d.bound("a connection that was used", (d.settledMemory()-attached)/n, usedMemory)
			if many := d.latency(fmt.Sprintf("with %d others attached", n)); many > attachTimes*alone {
				t.Errorf("an attach and a detach take %v among %d, and %v alone", many, n, alone)
			}
			d.refusesOneTooMany(maxConnections - n)
			d.scrapesQuickly(n)

			ended := underLoad(clients[:64])
			d.detachMany(n)
			for _, err := range ended() {
				if !errors.Is(err, syscall.ESHUTDOWN) {
					t.Errorf("a client of a disk that was detached heard %v", err)
				}
			}
			if s := d.settled(); s.Attached != 0 {
				t.Errorf("%d disks are attached still", s.Attached)
			}
			d.stop()
		})
	}
}

// daemonUnder starts a daemon that keeps everything under dir.
func daemonUnder(t *testing.T, dir string) *daemon {
	t.Helper()
	home, err := os.MkdirTemp(dir, "nbdcrypt")
	check(t, err)
	t.Cleanup(func() { check(t, os.RemoveAll(home)) })
	d := newDaemon(t)
	d.state, d.pool = home+"/state", home+"/pool"
	d.start()
	d.do("grant", "create")
	return d
}

func (d *daemon) attachMany(n int) {
	d.t.Helper()
	each(d.t, n, func(ctx context.Context, _ int, name string) error {
		_, err := d.api().Attach(ctx, name, control.Attach{})
		return err
	})
}

func (d *daemon) detachMany(n int) {
	d.t.Helper()
	each(d.t, n, func(ctx context.Context, _ int, name string) error {
		_, err := d.api().Detach(ctx, name, false)
		return err
	})
}

// bound reports a cost in bytes, and fails where it is more than it may be.
func (d *daemon) bound(what string, bytes, limit int) {
	d.t.Helper()
	d.t.Logf("%s takes %.1f KiB", what, float64(bytes)/1024)
	if bytes >= limit {
		d.t.Errorf("%s takes %d bytes, which must be less than %d", what, bytes, limit)
	}
}

// settledMemory is the least that the process takes of the machine (its share of every page, proc_pid_smaps(5)) in a moment without
// work: Go's collector and scavenger need some time.
func (d *daemon) settledMemory() int {
	d.t.Helper()
	least := d.memory()
	for range 8 {
		time.Sleep(100 * time.Millisecond)
		least = min(least, d.memory())
	}
	return least
}

func (d *daemon) memory() int {
	d.t.Helper()
	text := readFile(d.t, fmt.Sprintf("/proc/%d/smaps_rollup", d.pid()))
	found := regexp.MustCompile(`(?m)^Pss: +(\d+) kB$`).FindSubmatch(text)
	if found == nil {
		d.t.Fatalf("no Pss in %s", text)
	}
	kib, err := strconv.Atoi(string(found[1]))
	check(d.t, err)
	return kib << 10
}

// latency is what an attach and a clean detach take together.
func (d *daemon) latency(when string) time.Duration {
	d.t.Helper()
	attach, detach := d.attachLatency("probe")
	d.t.Logf("%s attach takes %v and detach %v", when, attach, detach)
	return attach + detach
}

func (d *daemon) attachLatency(disk string) (attach, detach time.Duration) {
	d.t.Helper()
	api, ctx := d.api(), context.Background()
	var attaches, detaches []time.Duration
	for range 41 {
		attaches = append(attaches, timed(func() {
			_, err := api.Attach(ctx, disk, control.Attach{})
			check(d.t, err)
		}))
		detaches = append(detaches, timed(func() {
			_, err := api.Detach(ctx, disk, false)
			check(d.t, err)
		}))
	}
	return median(attaches), median(detaches)
}

func timed(f func()) time.Duration {
	began := time.Now()
	f()
	return time.Since(began)
}

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}

// connectMany opens each disk once.
func (d *daemon) connectMany(n int) []*nbdclient.Client {
	d.t.Helper()
	clients := make([]*nbdclient.Client, n)
	each(d.t, n, func(_ context.Context, i int, name string) (err error) {
		clients[i], err = nbdclient.Dial(context.Background(), control.URI(name, filepath.Join(d.run, control.SocketNBD)))
		return err
	})
	d.t.Cleanup(func() {
		for _, c := range clients {
			_ = c.Disconnect() // the daemon may be gone by then
		}
	})
	return clients
}

// useAll writes to and reads from every connection.
func (d *daemon) useAll(clients []*nbdclient.Client) {
	d.t.Helper()
	each(d.t, len(clients), func(_ context.Context, i int, name string) error {
		data, got := noise(name, 50_000), make([]byte, 50_000)
		if _, err := clients[i].WriteAt(data, 777); err != nil {
			return err
		}
		if _, err := clients[i].ReadAt(got, 777); err != nil {
			return err
		}
		if string(got) != string(data) {
			return errors.New("what is read is not what was written")
		}
		return clients[i].Flush()
	})
}

// refusesOneTooMany opens as many more connections as there is room for. The next one is closed, which the log explains, until
// another one ends.
func (d *daemon) refusesOneTooMany(room int) {
	d.t.Helper()
	uri := control.URI("disk0", filepath.Join(d.run, control.SocketNBD))
	var more []*nbdclient.Client
	for range room {
		more = append(more, dial(d.t, uri))
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := nbdclient.Dial(ctx, uri); err == nil || ctx.Err() != nil {
		d.t.Errorf("connection %d: %v", maxConnections+1, err)
	}
	if !strings.Contains(d.said(), "too many connections") {
		d.t.Error("the log does not say why")
	}
	for _, c := range more {
		check(d.t, c.Disconnect())
	}
	waitFor(d.t, "nobody can connect any more", func() bool {
		c, err := nbdclient.Dial(ctx, uri)
		return err == nil && c.Disconnect() == nil
	})
}

// scrapesQuickly asks for the metrics of all disks.
func (d *daemon) scrapesQuickly(disks int) {
	d.t.Helper()
	var text string
	took := timed(func() {
		text = tool(d.t, "curl", "--silent", "--fail", "--unix-socket", filepath.Join(d.run, control.SocketControl), "http://localhost/metrics")
	})
	if n := strings.Count(text, "\nnbdcrypt_nbd_connections{"); n < disks {
		d.t.Errorf("%d disks are told of", n)
	}
	for _, want := range []string{`nbdcrypt_nbd_requests_total{command="write",disk="disk7",project="default"} 1`,
		`nbdcrypt_nbd_request_bytes_total{command="read",disk="disk7",project="default"} 50000`,
		`nbdcrypt_nbd_request_duration_seconds_bucket{command="flush",disk="disk7",project="default",le="+Inf"} 1`} {
		if !strings.Contains(text, "\n"+want+"\n") {
			d.t.Errorf("the metrics do not say %s", want)
		}
	}
	d.t.Logf("the metrics of %d disks are %d bytes, after %v", disks, len(text), took)
}

// underLoad writes on these connections until they refuse, which ended waits for.
func underLoad(clients []*nbdclient.Client) (ended func() []error) {
	errs := make([]error, len(clients))
	var all sync.WaitGroup
	for i, c := range clients {
		all.Go(func() {
			for at := int64(0); errs[i] == nil; at = (at + 10_000) % (1 << 19) {
				_, errs[i] = c.WriteAt(make([]byte, 20_000), at)
			}
		})
	}
	return func() []error { all.Wait(); return errs }
}
