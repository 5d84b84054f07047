package vm

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"time"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// pace is how long things may take, or are left.
type pace struct {
	firstTry, poll, slowPoll time.Duration // of the daemon that went
	patience                 time.Duration // a guest's to shut down when a signal asks for it
	pressAgain               time.Duration // a guest that is still booting does not hear the first time
	unplug                   time.Duration // the guest's time to let go of a disk
	goOn, settle             time.Duration // how often a guest that stands still is told to go on, and when it counts as going
	start                    time.Duration // QEMU's time to be there
	last                     time.Duration // for last words to the daemon and to whoever looks at the console
}

var normal = pace{
	firstTry: 200 * time.Millisecond, poll: time.Second, slowPoll: 10 * time.Second,
	patience: DefaultPatience, pressAgain: 15 * time.Second, unplug: 30 * time.Second, goOn: 5 * time.Second, settle: 3 * time.Second,
	start: time.Minute, last: 3 * time.Second,
}

// runner is a Run. What it has belongs to the loop.
type runner struct {
	Options
	pace
	program string
	kvm     bool
	token   string
	inbox   chan func()
	done    chan struct{} // closed when the loop has ended

	ctx    context.Context
	abort  context.CancelCauseFunc // ends the beginning, while there is one
	server control.Server
	link   *link // nil while the daemon is away
	outage *outage
	dir    *directory
	screen *console
	qemu   *qemu // nil until it runs
	disks  disks

	askedBefore bool
	stopping    *stopping
	waiting     []func(warning string) // who is told that QEMU has ended
	pause       pause
	anew        bool   // QEMU was killed, to begin again without KVM
	shutdown    string // what QEMU said last of why the guest ends
	killed      string // how it all ended; set before it does where we end it
	warning     string // what was not as it should be about the end

	over   bool
	result error
}

func newRunner(o Options, program string, p pace) *runner {
	secret := make([]byte, 16)
	_, _ = rand.Read(secret) // it never fails
	return &runner{Options: o, pace: p, program: program, kvm: canKVM(), token: hex.EncodeToString(secret), inbox: make(chan func()), done: make(chan struct{})}
}

// post has the loop call f, unless the loop has ended.
func (r *runner) post(f func()) bool {
	select {
	case r.inbox <- f:
		return true
	case <-r.done:
		return false
	}
}

// after has the loop call f later.
func (r *runner) after(d time.Duration, f func()) *time.Timer {
	return time.AfterFunc(d, func() { r.post(f) })
}

// beside runs f, which may wait, beside the loop, and then has the loop call it back with its error.
func (r *runner) beside(f func(ctx context.Context) error, then func(error)) {
	go func() {
		err := f(r.ctx)
		r.post(func() { then(err) })
	}()
}

// run is the loop.
func (r *runner) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.ctx = ctx
	r.begin()
	for !r.over {
		f := <-r.inbox
		f()
	}
	close(r.done)
	r.clean()
	return r.result
}

// begin asks for the disks.
func (r *runner) begin() {
	ctx, abort := context.WithCancelCause(r.ctx)
	r.abort = abort
	go func() {
		l, order, err := r.lease(ctx, time.Time{}, r.Server, nil)
		if !r.post(func() { r.leased(ctx, l, order, err) }) {
			l.cut()
		}
	}()
}

// leased has the disks, and starts QEMU on them.
func (r *runner) leased(ctx context.Context, l *link, order control.RunOrder, err error) {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if err == nil {
		r.server = *order.Server
		err = r.prepare(order)
	}
	if err != nil {
		l.cut() // not taken: it is as if we had not asked
		r.finish(err)
		return
	}
	r.link = l
	l.send(control.RunReport{Taken: true})
	go r.follow(l)
	r.boot(ctx)
}

// boot starts QEMU.
func (r *runner) boot(ctx context.Context) {
	want := hardware{server: r.server, disks: r.disks.plugged(), wait: r.Reconnect + daemonLate}
	go func() {
		q, err := r.launch(ctx, want)
		r.post(func() { r.launched(ctx, q, err) })
	}()
}

// prepare makes all that is there before QEMU is.
func (r *runner) prepare(order control.RunOrder) (err error) {
	if err = r.disks.boot(order.Disks); err != nil {
		return err
	}
	if r.dir, err = r.directory(r.server.ID); err != nil {
		return err
	}
	r.screen, err = openConsole(r.dir)
	return err
}

// launched has a QEMU that runs.
func (r *runner) launched(ctx context.Context, q *qemu, err error) {
	if cause := context.Cause(ctx); cause != nil {
		q.kill()
		err = cause
	}
	if err != nil {
		r.finish(err)
		return
	}
	r.abort, r.qemu = nil, q
	go func() {
		<-q.gone
		<-q.monitor.Gone() // all that it said was heard
		r.post(r.qemuEnded)
	}()
	now := time.Now()
	r.server.Status, r.server.Since = control.ServerRunning, &now
	r.server.PID, r.server.Console, r.server.Accelerator = q.pid, r.dir.path+"/"+consoleSocket, q.accelerator
	r.link.send(r.running())
	id := r.server.ID
	r.beside(func(ctx context.Context) error { return r.known(ctx, id) }, func(error) { r.tellStarted() })
}

// tellStarted tells it once, though the server may begin again.
func (r *runner) tellStarted() {
	if r.Started != nil {
		r.Started(r.server)
		r.Started = nil
	}
}

// known waits until the daemon knows that the server runs: who is told may look there. It gets some time for that, and no more.
func (r *runner) known(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, r.last)
	defer cancel()
	for wait := time.Millisecond; ; wait *= 2 {
		if s, err := r.Client.ServerShow(ctx, id); err != nil || s.Status != control.ServerStarting {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *runner) running() control.RunReport {
	return control.RunReport{Running: &control.RunningServer{PID: r.server.PID, Console: r.server.Console, Accelerator: r.server.Accelerator}}
}

// finish ends the loop; err is what Run returns.
func (r *runner) finish(err error) {
	if r.over {
		return
	}
	r.over, r.result = true, err
	if r.abort != nil {
		r.abort(nil)
	}
	if r.killed == "" && err != nil {
		r.killed = refusal.From(err).Message
	}
}

// clean leaves nothing, and then says so: the server may be started again at once.
func (r *runner) clean() {
	r.screen.end(r.last)
	r.dir.remove()
	for _, tell := range r.waiting {
		tell(r.warning)
	}
	r.link.send(control.RunReport{Ended: r.killed})
	r.link.end(r.last)
}
