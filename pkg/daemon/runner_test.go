package daemon

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdclient"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

const aToken = "0123456789abcdef0123456789abcdef"

// served opens a daemon with its sockets in this test's own hands.
func served(t *testing.T, o Options) *Daemon {
	t.Helper()
	o.Ready = func(string) {}
	d := newDaemon(o)
	if err := d.open(t.Context()); err != nil {
		d.close()
		t.Fatal(err)
	}
	d.nbd = nbd.NewServer(d.exports, o.Log)
	d.api = d.newAPI()
	if _, err := d.serve(context.Background(), nil); err != nil {
		d.close()
		t.Fatal(err)
	}
	d.watching.Go(d.doChores)
	t.Cleanup(sync.OnceFunc(func() { d.halt(t) }))
	return d
}

// halt stops it as the end of Run does.
func (d *Daemon) halt(t *testing.T) {
	t.Helper()
	if d.life.Err() != nil {
		return // it was stopped in the test
	}
	if err := d.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	d.close()
}

// farmed is when this test's daemon began: keys from before are other tests'.
var farmed time.Time

// testLog shows what a daemon says of errors, where its test fails.
type testLog struct{ t *testing.T }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Log(strings.ReplaceAll(string(b), `\n`, "\n"))
	return len(b), nil
}

// farm is a served daemon with keys a, b and c, an image golden under a, and a server web: its system disk under a, data disks plain, under b and under c.
func farm(t *testing.T) (*Daemon, *control.Client) {
	t.Helper()
	o := options(t)
	o.Log = slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelError}))
	farmed = time.Now()
	d := served(t, o)
	must(t, d, control.RouteGrantCreate, "")
	for _, key := range []string{"a", "b", "c"} {
		must(t, d, control.RouteKeyCreate, `{"alias":"`+key+`"}`)
	}
	must(t, d, control.RouteDiskCreate, `{"name":"seed","size":1048576,"key":"a"}`)
	must(t, d, control.RouteImageCreate, `{"name":"golden","disk":"seed"}`)
	must(t, d, control.RouteServerCreate, `{"name":"web","image":"golden","system":{},"data":[{"size":1048576,"encrypted":false},{"size":1048576,"key":"b"},{"size":1048576,"key":"c"}]}`)
	return d, client(o)
}

// runner is what runs a server, without a guest: it takes the disks, says that it runs, and does what a test has it do with an order.
type runner struct {
	t     *testing.T
	line  *control.Line
	first control.RunOrder
	// does answers an order; nil has it do all that it is told.
	does  func(control.RunOrder) control.RunReport
	ended chan struct{} // closed when the line is over
	bye   bool          // that it was told so, once ended is closed

	mu   sync.Mutex
	told []string
}

// asked asks for the disks of a server, and takes the first order, no more.
func asked(t *testing.T, c *control.Client, name string, how control.ServerRun) (*runner, error) {
	t.Helper()
	line, err := c.ServerRun(t.Context(), name, how)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = line.Close() })
	r := &runner{t: t, line: line, ended: make(chan struct{})}
	if err := line.Receive(&r.first); err != nil {
		return nil, err
	}
	return r, nil
}

// runs runs a server.
func runs(t *testing.T, d *Daemon, c *control.Client, name string, from ...control.Continues) *runner {
	t.Helper()
	r, err := asked(t, c, name, control.ServerRun{Token: aToken, Continues: from})
	if err != nil {
		t.Fatal(err)
	}
	r.take()
	await(t, "the server runs", func() bool {
		s, err := c.ServerShow(t.Context(), name)
		return err == nil && s.Status == control.ServerRunning
	})
	return r
}

// take says that the disks have come and that QEMU runs, and follows orders from then on.
func (r *runner) take() {
	r.t.Helper()
	r.say(control.RunReport{Taken: true})
	r.say(control.RunReport{Running: &control.RunningServer{PID: 4242, Console: "/run/console", Accelerator: "tcg"}})
	go r.follow()
}

func (r *runner) say(in control.RunReport) {
	r.t.Helper()
	if err := r.line.Send(in); err != nil {
		r.t.Error(err)
	}
}

func (r *runner) follow() {
	defer close(r.ended)
	for {
		var o control.RunOrder
		if err := r.line.Receive(&o); err != nil {
			return
		}
		if o.Bye {
			r.bye = true
			continue
		}
		r.mu.Lock()
		r.told = append(r.told, o.Do)
		does := r.does
		r.mu.Unlock()
		go r.obey(o, does)
	}
}

func (r *runner) obey(o control.RunOrder, does func(control.RunOrder) control.RunReport) {
	in := control.RunReport{}
	if does != nil {
		in = does(o)
	}
	in.ID = o.ID
	_ = r.line.Send(in)
	if in.Error == nil && (o.Do == control.OrderStop || o.Do == control.OrderKill) {
		_ = r.line.Send(control.RunReport{Ended: "the guest shut down"})
		_ = r.line.Close()
	}
}

func (r *runner) do(does func(control.RunOrder) control.RunReport) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.does = does
}

// disks are what it would name to go on.
func (r *runner) disks() (list []control.Continues) {
	for _, disk := range r.first.Disks {
		list = append(list, control.Continues{DiskID: disk.DiskID, Epoch: disk.Epoch})
	}
	return list
}

// dial opens the export of a disk of the run as QEMU does.
func (r *runner) dial(i int) *nbdclient.Client {
	r.t.Helper()
	disk := r.first.Disks[i]
	nc, err := nbdclient.Dial(r.t.Context(), control.URI(disk.Export, disk.Socket))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = nc.Disconnect() })
	return nc
}

// await waits until something is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it does not come to it that %s", what)
		}
	}
}

// deks counts the data keys in memory.
func deks() (n int) {
	_, keys := secret.Snapshot()
	for _, k := range keys {
		if k.Kind == "dek" && !k.Since.Before(farmed) {
			n++
		}
	}
	return n
}

func showServer(t *testing.T, c *control.Client, name string) control.Server {
	t.Helper()
	s, err := c.ServerShow(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// rests waits until a server is stopped, and nothing of it attached.
func rests(t *testing.T, d *Daemon, c *control.Client, name string) control.Server {
	t.Helper()
	await(t, name+" is stopped", func() bool { return showServer(t, c, name).Status == control.ServerStopped })
	s := showServer(t, c, name)
	for _, disk := range s.Disks {
		if disk.Status != "available" {
			t.Errorf("disk %s is %s", disk.Name, disk.Status)
		}
	}
	if n := deks(); n != 0 {
		t.Errorf("%d DEKs are in memory", n)
	}
	return s
}

func code(t *testing.T, err error, want refusal.Code, says ...string) {
	t.Helper()
	if refusal.CodeOf(err) != want {
		t.Errorf("%v, want the code %d", err, want)
		return
	}
	r := refusal.From(err)
	for _, word := range says {
		if !strings.Contains(r.Message+"; "+r.Hint, word) {
			t.Errorf("%s; %s: it does not say %q", r.Message, r.Hint, word)
		}
	}
}
