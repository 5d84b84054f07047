package daemon

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/google/uuid"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/server"
	"nbdcrypt/pkg/volume"
)

const (
	// takenTime is how long a runner may take to say that it has got what it asked for.
	takenTime = 10 * time.Second
	// pausedEvery is how often it is told at most that a guest stands still.
	pausedEvery = time.Minute
	// wordsOfRunner is how much of what a runner says is kept.
	wordsOfRunner = 300
)

// lease is a run's hold of its disks: as long as the runner's line is there they are attached, and its exports open.
type lease struct {
	d      *Daemon
	c      *call // the runner's
	run    *server.Run
	server server.Server
	token  string

	// cut is closed when the line is over, done when nothing is attached any more.
	cut, done chan struct{}
	// again has an end that failed be tried at once.
	again chan struct{}
	work  sync.WaitGroup // what was begun because of a report

	mu       sync.Mutex
	line     *control.Line // nil until the runner is answered
	disks    []*leased
	opened   bool // the exports were open: what was attached can't be undone
	orders   map[int]chan control.RunReport
	last     int
	warnings []string      // of the start
	lost     []string      // what the end could not keep
	tried    chan struct{} // closed, and made anew, with each end that failed
	failed   error         // how that was
	closing  sync.Once
	// pausedTold is when somebody was told that the guest stands still.
	pausedTold time.Time
}

// leased is a disk that is attached for a run.
type leased struct {
	a    *volume.Attachment
	role string
	gone bool // the guest has given it away
}

func newLease(d *Daemon, c *call, run *server.Run, token string) *lease {
	own := *c // the call may be answered before the run is over
	return &lease{d: d, c: &own, run: run, server: run.Server(), token: token, cut: make(chan struct{}), done: make(chan struct{}),
		again: make(chan struct{}, 1), orders: map[int]chan control.RunReport{}, tried: make(chan struct{})}
}

// ServeHTTP implements http.Handler: it is the answer to the call, and lasts as long as the run.
func (l *lease) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	defer l.d.leases.leave(l.c.caller.UID)
	why, held := l.hand(w)
	if held {
		why = l.listen()
	}
	l.hangUp()
	if held {
		l.end(why)
	} else {
		l.giveUp(why)
	}
}

// hand answers the runner, and opens the exports once it says that it has got them. Until then all can be taken back.
func (l *lease) hand(w http.ResponseWriter) (why string, held bool) {
	if l.d.life.Err() != nil {
		control.WriteError(w, errStopping())
		return "the daemon stops", false
	}
	line, err := control.AcceptLine(w)
	if err != nil {
		return "the runner has gone", false
	}
	l.mu.Lock()
	l.line = line
	l.mu.Unlock()
	timer := time.AfterFunc(l.d.takenTime, l.hangUp)
	defer timer.Stop()
	defer context.AfterFunc(l.d.life, l.hangUp)()
	if err := line.Send(l.first()); err != nil {
		return "the runner has gone", false
	}
	var in control.RunReport
	switch err := line.Receive(&in); {
	case err != nil:
		return "the runner did not take the disks", false
	case !in.Taken:
		return cmp.Or(fit(in.Ended), "the runner did not take the disks"), false
	}
	if !timer.Stop() || !l.d.leases.hold(l) {
		return "the runner did not take the disks in time", false
	}
	for _, at := range l.attached() {
		l.d.fillSoon(at.a.Project, at.a.Disk.String(), at.a.Name)
	}
	return "", true
}

// first is the order that says what is to run.
func (l *lease) first() control.RunOrder {
	view := l.d.serverView(context.WithoutCancel(l.c.ctx), l.server)
	l.mu.Lock()
	defer l.mu.Unlock()
	view.Warnings = append(view.Warnings, l.warnings...)
	o := control.RunOrder{Server: &view}
	for _, at := range l.disks {
		o.Disks = append(o.Disks, l.runDisk(at))
	}
	return o
}

func (l *lease) runDisk(at *leased) control.RunDisk {
	block, _ := at.a.Device.BlockSizes()
	size, _ := at.a.Device.Size() // of ours it always is known
	return control.RunDisk{Role: at.role, DiskID: at.a.Disk.String(), Name: at.a.Name, Size: size, Export: l.export(at), Socket: l.d.nbdPath(),
		Epoch: at.a.Epoch(), ReadOnly: at.a.ReadOnly, BlockSize: int(block)}
}

// export is what the export of a disk is called, which nobody else knows.
func (l *lease) export(at *leased) string { return l.token + "/" + at.a.Disk.String() }

// open opens the exports of all disks to the runner's user.
func (l *lease) open() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opened = true
	for _, at := range l.disks {
		l.d.exports.lend(at.a, l.export(at), l.c.caller.UID)
	}
}

// hangUp ends the line; who listens to it hears that.
func (l *lease) hangUp() {
	l.mu.Lock()
	line := l.line
	l.mu.Unlock()
	if line != nil {
		_ = line.Close()
	}
}

// bye tells the runner that the daemon stops, and ends the line.
func (l *lease) bye() {
	l.mu.Lock()
	line := l.line
	l.mu.Unlock()
	if line != nil {
		_ = line.Send(control.RunOrder{Bye: true})
		_ = line.Close()
	}
}

// listen hears the runner out, and tells how the run ended.
func (l *lease) listen() (why string) {
	for {
		var in control.RunReport
		if err := l.line.Receive(&in); err != nil {
			return "the runner has gone"
		}
		if in.Ended != "" {
			return fit(in.Ended)
		}
		l.hear(in)
	}
}

func (l *lease) hear(in control.RunReport) {
	switch {
	case in.ID != 0:
		l.answered(in)
	case in.Running != nil:
		l.run.Running(server.RunInfo{By: l.c.caller.User, UID: l.c.caller.UID, PID: in.Running.PID, Console: fit(in.Running.Console),
			Accelerator: fit(in.Running.Accelerator), Since: l.d.clock.Now()})
	case in.Left != "":
		if id, err := uuid.Parse(in.Left); err == nil {
			l.work.Go(func() { l.left(id) })
		}
	case in.Paused != "":
		l.paused(fit(in.Paused))
	case in.Resumed:
		l.paused("")
	}
}

// paused notes why the guest stands still, or that it goes on. A guest that does so again and again is told of now and then.
func (l *lease) paused(why string) {
	l.run.Paused(why)
	l.mu.Lock()
	told := time.Since(l.pausedTold) < pausedEvery
	if why != "" && !told {
		l.pausedTold = time.Now()
	}
	l.mu.Unlock()
	if why != "" && !told {
		l.d.notify(event{Event: eventServerPaused, Project: l.c.project, Resource: l.server.Name,
			Message: fmt.Sprintf("the guest of server %s stands still: %s", l.server.Name, why)})
	}
}

// order has the runner do something, and waits for its answer.
func (l *lease) order(ctx context.Context, o control.RunOrder, limit time.Duration) (control.RunReport, error) {
	answer := make(chan control.RunReport, 1)
	l.mu.Lock()
	l.last++
	o.ID, l.orders[l.last] = l.last, answer
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.orders, o.ID)
	}()
	if err := l.line.Send(o); err != nil {
		l.hangUp() // part of it may be sent
		select {
		case <-l.cut: // so that who gave the order finds the run as what it is
		case <-l.d.life.Done():
		}
		return control.RunReport{}, l.runnerGone()
	}
	return l.answer(ctx, answer, limit)
}

// answer waits for what the runner answers to an order. One that it gave before its line ended is an answer.
func (l *lease) answer(ctx context.Context, answer <-chan control.RunReport, limit time.Duration) (control.RunReport, error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case in := <-answer:
		return answerOf(in)
	case <-l.cut:
		select {
		case in := <-answer:
			return answerOf(in)
		default:
			return control.RunReport{}, l.runnerGone()
		}
	case <-l.d.life.Done():
		return control.RunReport{}, errStopping()
	case <-ctx.Done():
		return control.RunReport{}, ctx.Err()
	case <-timer.C:
		return control.RunReport{}, refusal.New(refusal.Failed, fmt.Sprintf("`nbdcrypt server stop --force %s` switches it off", l.server.Name),
			"the runner of server %s did not answer within %v", l.server.Name, limit)
	}
}

func answerOf(in control.RunReport) (control.RunReport, error) {
	if in.Warning = fit(in.Warning); in.Error != nil {
		return in, in.Error.Refusal()
	}
	return in, nil
}

func (l *lease) runnerGone() error {
	return refusal.New(refusal.Failed, "`nbdcrypt server show "+l.server.Name+"` tells how it ended", "the run of server %s has ended meanwhile", l.server.Name)
}

// answered hands an answer to who waits for it. One that comes too late is nobody's.
func (l *lease) answered(in control.RunReport) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if answer := l.orders[in.ID]; answer != nil {
		answer <- in
		delete(l.orders, in.ID)
	}
}

func (l *lease) add(at *leased) {
	l.d.leases.holds(l, at.a.Disk)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.disks = append(l.disks, at)
}

func (l *lease) drop(at *leased) {
	l.d.leases.frees(l, at.a.Disk)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.disks = slices.DeleteFunc(l.disks, func(other *leased) bool { return other == at })
}

// attached are the disks that are attached for the run.
func (l *lease) attached() []*leased {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.disks)
}

// disk is one of them, nil where it is none.
func (l *lease) disk(id uuid.UUID) *leased {
	for _, at := range l.attached() {
		if at.a.Disk == id {
			return at
		}
	}
	return nil
}

// isAttached tells whether a disk's attachment is still this one.
func (l *lease) isAttached(at *leased) bool { return slices.Contains(l.d.volumes.Attachments(), at.a) }

func (l *lease) warn(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.warnings = append(l.warnings, text)
}

// fit is what a runner says as it may be shown to others: its user may be anybody.
func fit(said string) string {
	said = strings.ToValidUTF8(said[:min(len(said), wordsOfRunner)], "?")
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, said))
}
