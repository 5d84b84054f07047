package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

const serverID = "6f1d2c3b-4a59-4687-8796-a5b4c3d2e1f0"

// daemon is one that lends disks: a test says what, or refuses.
type daemon struct {
	t      *testing.T
	socket string
	leases chan *lease // those that came

	mu      sync.Mutex
	http    *http.Server
	refuses error
	name    string
	disks   []control.RunDisk
	token   string
	asked   int
	shown   int
}

// lease is one that was given.
type lease struct {
	t     *testing.T
	how   control.ServerRun
	line  *control.Line
	heard []control.RunReport
	next  int // the id of an order
}

func newDaemon(t *testing.T, name string) *daemon {
	d := &daemon{t: t, socket: filepath.Join(t.TempDir(), "control.sock"), leases: make(chan *lease, 10), name: name}
	d.disks = []control.RunDisk{d.disk("d1", control.DataDisk), d.disk("sys", control.SystemDisk)}
	d.serve()
	t.Cleanup(d.crash)
	return d
}

func (d *daemon) disk(name, role string) control.RunDisk {
	return control.RunDisk{Role: role, DiskID: fmt.Sprintf("%s-4a59-4687-8796-a5b4c3d2e1f0", name), Name: name, Size: 1 << 20, Socket: "/run/nbd.sock", Epoch: 5, BlockSize: 4096}
}

// serve is another run of the daemon.
func (d *daemon) serve() {
	_ = os.Remove(d.socket)
	l, err := net.Listen("unix", d.socket)
	if err != nil {
		d.t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc(control.RouteServerRun, d.run)
	mux.HandleFunc(control.RouteServerShow, d.show)
	server := &http.Server{Handler: mux}
	d.change(func() { d.http = server })
	go func() { _ = server.Serve(l) }()
}

// crash ends it; lines that are there a test has to close.
func (d *daemon) crash() {
	d.change(func() { _ = d.http.Close() })
}

func (d *daemon) change(how func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	how()
}

func (d *daemon) run(w http.ResponseWriter, r *http.Request) {
	var how control.ServerRun
	if err := json.NewDecoder(r.Body).Decode(&how); err != nil {
		d.t.Error(err)
	}
	d.mu.Lock()
	d.asked++
	refuses := d.refuses
	first := control.RunOrder{Server: &control.Server{ID: serverID, Name: d.name, Project: "default", Status: control.ServerStarting, CPUs: 1, Memory: 256 << 20}}
	for _, disk := range d.disks {
		disk.Export = how.Token + "/" + disk.DiskID
		first.Disks = append(first.Disks, disk)
	}
	d.token = how.Token
	d.mu.Unlock()
	if refuses != nil {
		control.WriteError(w, refuses)
		return
	}
	line, err := control.AcceptLine(w)
	if err != nil {
		d.t.Error(err)
		return
	}
	_ = line.Send(first)
	d.leases <- &lease{t: d.t, how: how, line: line}
}

// show tells at the third time that the server runs.
func (d *daemon) show(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := control.Server{Status: control.ServerStarting}
	if d.shown++; d.shown > 2 {
		s.Status = control.ServerRunning
	}
	control.WriteJSON(w, http.StatusOK, s)
}

// lease waits for the next.
func (d *daemon) lease() *lease {
	d.t.Helper()
	select {
	case l := <-d.leases:
		d.t.Cleanup(func() { _ = l.line.Close() })
		return l
	case <-time.After(time.Minute):
		d.t.Fatal("nobody asks for a lease")
		return nil
	}
}

// hears waits for a report that is so.
func (l *lease) hears(is func(control.RunReport) bool) control.RunReport {
	l.t.Helper()
	for {
		var r control.RunReport
		if err := l.line.Receive(&r); err != nil {
			l.t.Fatalf("the line ends with %v after %+v", err, l.heard)
		}
		l.heard = append(l.heard, r)
		if is(r) {
			return r
		}
	}
}

// taken waits for a runner that has what it needs, and for its QEMU.
func (l *lease) taken() *control.RunningServer {
	l.t.Helper()
	l.hears(func(r control.RunReport) bool { return r.Taken })
	return l.hears(func(r control.RunReport) bool { return r.Running != nil }).Running
}

// order gives an order and waits for its answer.
func (l *lease) order(o control.RunOrder) control.RunReport {
	l.t.Helper()
	return l.answer(l.orders(o))
}

func (l *lease) orders(o control.RunOrder) int {
	l.t.Helper()
	l.next++
	o.ID = l.next
	if err := l.line.Send(o); err != nil {
		l.t.Fatal(err)
	}
	return l.next
}

func (l *lease) answer(id int) control.RunReport {
	l.t.Helper()
	return l.hears(func(r control.RunReport) bool { return r.ID == id })
}

// ends wants the last report, and that the line ends with it.
func (l *lease) ends(how string) {
	l.t.Helper()
	r := l.hears(func(r control.RunReport) bool { return r.Ended != "" })
	if !strings.Contains(r.Ended, how) {
		l.t.Errorf("it ended with %q, not %q", r.Ended, how)
	}
	if err := l.line.Receive(&r); !errors.Is(err, io.EOF) {
		l.t.Error("the line goes on:", err)
	}
}

// quick is a pace for tests, where nothing is late by itself.
var quick = pace{
	firstTry: time.Millisecond, poll: 20 * time.Millisecond, slowPoll: 50 * time.Millisecond, patience: time.Hour, pressAgain: 50 * time.Millisecond, unplug: time.Hour,
	goOn: 20 * time.Millisecond, settle: 50 * time.Millisecond, start: time.Minute, last: 20 * time.Second,
}

// running is a runner at work.
type running struct {
	*runner
	t       *testing.T
	dir     string
	started chan control.Server
	result  chan error

	mu   sync.Mutex
	said []string
}

// runs starts a runner; change makes it another one than most tests need.
func (d *daemon) runs(change func(r *runner)) *running {
	t := d.t
	x := &running{t: t, dir: t.TempDir(), started: make(chan control.Server, 1), result: make(chan error, 1)}
	o := Options{Client: control.New(d.socket), Server: d.name, RunDir: x.dir, Reconnect: time.Minute, Started: func(s control.Server) { x.started <- s }}
	o.Say = func(format string, args ...any) {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.said = append(x.said, fmt.Sprintf(format, args...))
	}
	x.runner = newRunner(o, fakeProgram(t), quick)
	x.kvm = false
	if change != nil {
		change(x.runner)
	}
	done := x.done
	t.Cleanup(func() {
		x.post(func() { x.killed = "the test ended"; x.runner.qemu.kill(); x.finish(nil) })
		<-done
	})
	go func() { x.result <- x.run(context.Background()) }()
	return x
}

// up waits until QEMU runs.
func (x *running) up() control.Server {
	x.t.Helper()
	select {
	case s := <-x.started:
		return s
	case err := <-x.result:
		x.t.Fatalf("it ended: %v", err)
	case <-time.After(time.Minute):
		x.t.Fatal("it does not start")
	}
	return control.Server{}
}

// ends wants it to end with that code, and to have left nothing.
func (x *running) ends(code refusal.Code, words string) {
	x.t.Helper()
	select {
	case err := <-x.result:
		if refusal.CodeOf(err) != code || words != "" && !strings.Contains(err.Error(), words) {
			x.t.Errorf("it ended with %v (%d), want %q (%d)", err, refusal.CodeOf(err), words, code)
		}
	case <-time.After(time.Minute):
		x.t.Fatal("it does not end")
	}
	if left, err := os.ReadDir(x.dir + "/servers"); len(left) > 0 || err != nil && !errors.Is(err, os.ErrNotExist) {
		x.t.Errorf("it left %v, %v", left, err)
	}
}

// says waits for words.
func (x *running) says(words string) {
	x.t.Helper()
	until(x.t, "it says "+words, func() bool {
		x.mu.Lock()
		defer x.mu.Unlock()
		return strings.Contains(strings.Join(x.said, "\n"), words)
	})
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// screen is a look at the console.
type screen struct {
	t    *testing.T
	in   *io.PipeWriter
	done chan error

	mu   sync.Mutex
	text strings.Builder
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func look(t *testing.T, path string) *screen {
	from, in := io.Pipe()
	s := &screen{t: t, in: in, done: make(chan error, 1)}
	go func() { s.done <- Console(context.Background(), path, from, s, false) }()
	t.Cleanup(func() { _ = in.CloseWithError(ErrLeave) })
	return s
}

// types has the guest do something; it is done when that is seen.
func (s *screen) types(line string) {
	s.t.Helper()
	if _, err := fmt.Fprintln(s.in, line); err != nil {
		s.t.Fatal(err)
	}
	s.sees("done " + line)
}

func (s *screen) sees(words string) {
	s.t.Helper()
	until(s.t, "on the console: "+words, func() bool { return strings.Contains(s.String(), words) })
}
