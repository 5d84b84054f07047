package iobench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"nbdcrypt/nbd/nbdclient"
	"nbdcrypt/pkg/control"
)

// Footprint is the memory that each of many takes of the server, in bytes: what it holds with them, less what it held before, and divided.
type Footprint struct {
	Number int `json:"number"`
	// Resident is what counts: all of the process, garbage included.
	Resident int64 `json:"resident"`
	// Go is what Go's runtime has in use for heap and stacks.
	Go    int64 `json:"go"`
	Limit int64 `json:"limit"`
	Met   bool  `json:"met"`
}

// held is what the server holds.
type held struct{ resident, inGo int64 }

// footprint measures what n of something take that grow makes.
func (c *crowd) footprint(ctx context.Context, n int, limit int64, grow func(context.Context) error) (Footprint, error) {
	before, err := c.held(ctx)
	if err != nil {
		return Footprint{}, err
	}
	if err := grow(ctx); err != nil {
		return Footprint{}, err
	}
	now, err := c.held(ctx)
	if err != nil {
		return Footprint{}, err
	}
	return newFootprint(before, now, n, limit), nil
}

func newFootprint(before, now held, n int, limit int64) Footprint {
	f := Footprint{Number: n, Resident: (now.resident - before.resident) / int64(n), Go: (now.inGo - before.inGo) / int64(n), Limit: limit}
	f.Met = f.Resident < limit
	return f
}

// connections measures idle connections, each to a disk of its own where there are enough.
func (c *crowd) connections(ctx context.Context) (Footprint, error) {
	socket := filepath.Join(c.run, control.SocketNBD)
	var clients []*nbdclient.Client
	defer func() { hangUp(clients) }()
	return c.footprint(ctx, c.o.Connections, connectionLimit, func(ctx context.Context) (err error) {
		clients, err = dialMany(ctx, c.o.Connections, func(i int) string {
			c.step()
			return control.URI(control.ExportName(control.DefaultProject, nameOf(i%c.o.Disks)), socket)
		})
		return err
	})
}

// held looks at the server once it has come to rest.
func (c *crowd) held(ctx context.Context) (held, error) {
	const (
		rest  = 500 * time.Millisecond
		tries = 10
	)
	status := fmt.Sprintf("/proc/%d/status", c.daemon.PID)
	var h held
	for range tries {
		now := kibibytes(field(status, "VmRSS"))
		if now == h.resident && now > 0 {
			break
		}
		h.resident = now
		select {
		case <-time.After(rest):
		case <-ctx.Done():
			return held{}, ctx.Err()
		}
	}
	if h.resident == 0 {
		return held{}, fmt.Errorf("%s says nothing of VmRSS", status)
	}
	var err error
	h.inGo, err = inGo(ctx, filepath.Join(c.run, control.SocketControl)) // last: answering takes memory too
	return h, err
}

// inGo asks the daemon's metrics for the memory that Go has in use.
func inGo(ctx context.Context, socket string) (int64, error) {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/metrics", nil)
	if err != nil {
		return 0, err
	}
	answer, err := transport.RoundTrip(ask)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	return sumOf(answer.Body, "go_memstats_heap_inuse_bytes", "go_memstats_stack_inuse_bytes")
}

// sumOf adds metrics without labels, each of which has to be there.
func sumOf(metrics io.Reader, names ...string) (sum int64, err error) {
	missing := map[string]bool{}
	for _, name := range names {
		missing[name] = true
	}
	lines := bufio.NewScanner(metrics)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if !missing[name] {
			continue
		}
		number, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("the metric %s: %w", name, err)
		}
		delete(missing, name)
		sum += int64(number)
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("metrics: %w", err)
	}
	if len(missing) > 0 {
		return 0, fmt.Errorf("no metrics of memory among those of the daemon")
	}
	return sum, nil
}
