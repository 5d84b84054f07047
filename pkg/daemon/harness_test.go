package daemon

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"nbdcrypt/nbd"
	"nbdcrypt/pkg/control"
)

// options are those of a daemon in a fresh directory.
func options(t *testing.T) Options {
	t.Helper()
	dir, err := os.MkdirTemp("", "nbdc") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return optionsIn(dir)
}

func optionsIn(dir string) Options {
	return Options{State: filepath.Join(dir, "state"), Run: filepath.Join(dir, "run"), Pool: filepath.Join(dir, "state/pool"),
		RootKey: filepath.Join(dir, "key/root.key"), Region: "local", Log: slog.New(slog.DiscardHandler)}
}

// start opens a daemon without its sockets, with the rights of project default granted.
func start(t *testing.T) *Daemon {
	t.Helper()
	return startWith(t, options(t))
}

func startWith(t *testing.T, o Options) *Daemon {
	t.Helper()
	d := newDaemon(o)
	t.Cleanup(d.close)
	t.Cleanup(func() { _ = d.jobs.Shutdown(context.Background()) })
	if err := d.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if status, body := d.call(t, control.RouteGrantCreate, nbd.Peer{}, ""); status != http.StatusOK {
		t.Fatalf("grant: %d %s", status, body)
	}
	return d
}

// call makes a call as somebody, with an id of its own. {…} in the pattern stands for "nothing".
func (d *Daemon) call(t *testing.T, pattern string, peer nbd.Peer, body string) (int, string) {
	t.Helper()
	return d.callAs(t, pattern, peer, body, newRequest())
}

func (d *Daemon) callAs(t *testing.T, pattern string, peer nbd.Peer, body, id string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	d.newAPI().Handler.ServeHTTP(w, request(pattern, peer, body, id))
	return w.Code, w.Body.String()
}

func request(pattern string, peer nbd.Peer, body, id string) *http.Request {
	method, path, _ := strings.Cut(pattern, " ")
	path = strings.NewReplacer("{disk}", "nothing", "{image}", "nothing", "{backup}", "nothing", "{key}", "nothing", "{job}", "nothing", "{slot}", "nothing", "{server}", "nothing", "{config}", "nothing", "{group}", "nothing", "{project}", "nothing").Replace(path)
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	req.Header.Set(control.HeaderRequest, id)
	return req.WithContext(context.WithValue(req.Context(), peerKey{}, peer))
}

// run runs a whole daemon with its sockets, and returns what ends it and tells how it ended.
func run(t *testing.T, o Options) (stop func() error) {
	t.Helper()
	ready := make(chan string, 1)
	o.Ready = func(uri string) { ready <- uri }
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, o) }()
	select {
	case <-ready:
	case err := <-ended:
		cancel()
		t.Fatalf("the daemon did not start: %v", err)
	}
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { _ = stop() })
	return stop
}

// awaitJob waits for the end of the job that a call was answered with.
func (d *Daemon) awaitJob(t *testing.T, body string) control.Job {
	t.Helper()
	var job control.Job
	if err := json.Unmarshal([]byte(body), &job); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	for job.State == control.JobRunning {
		var err error
		if job, err = d.jobs.Get(t.Context(), job.ID, job.Revision, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	return job
}
