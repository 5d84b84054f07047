package vm

import (
	"fmt"
	"time"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

const (
	// daemonLate is how much longer than us QEMU waits for its disks: we end it, before it tells its guest of errors.
	daemonLate = time.Minute
	// callTime is how long after the end of an outage the daemon may take to answer the last call.
	callTime = 30 * time.Second
)

// outage is the time in which the daemon is away.
type outage struct {
	until time.Time
	told  string // what was told last of why
}

// left is the end of a link. Without it QEMU may not begin, and one that runs waits for its disks.
func (r *runner) left(l *link) {
	if l != r.link {
		return
	}
	r.link = nil
	switch {
	case r.qemu == nil:
		r.abort(refusal.New(refusal.Unreachable, "its log says why; start the server again once it runs", "the daemon went away while server %s was being started", r.server.Name))
	case r.outage == nil:
		r.outage = &outage{until: time.Now().Add(r.Reconnect)}
		r.after(r.firstTry, r.again)
	}
}

// again asks the next daemon for the same disks as they were left.
func (r *runner) again() {
	until, continues := r.outage.until.Add(callTime), r.disks.continues()
	go func() {
		l, order, err := r.lease(r.ctx, until, r.server.ID, continues)
		if !r.post(func() { r.lent(l, order, err) }) {
			l.cut()
		}
	}()
}

// lent has the disks again, or not.
func (r *runner) lent(l *link, order control.RunOrder, err error) {
	if err == nil {
		err = r.disks.same(order.Disks)
	}
	switch refusal.CodeOf(err) {
	case refusal.OK:
		r.goOnWith(l, order)
		return
	case refusal.NotFound, refusal.Damaged, refusal.Usage:
		l.cut()
		r.give(err)
		return
	}
	l.cut()
	if !time.Now().Before(r.outage.until) {
		e := refusal.From(err)
		r.give(refusal.New(e.Code, e.Hint, "server %s was given up after %v without its disks: %w", r.server.Name, r.Reconnect, e))
		return
	}
	r.tell(err)
	r.after(r.until(err), r.again)
}

// goOnWith tells the daemon all that it can't know.
func (r *runner) goOnWith(l *link, order control.RunOrder) {
	if r.outage.told != "" {
		r.Say("server %s has its disks again", r.server.Name)
	}
	r.outage, r.link = nil, l
	l.send(control.RunReport{Taken: true})
	go r.follow(l)
	l.send(r.running())
	if r.pause.why != "" {
		l.send(control.RunReport{Paused: r.pause.why})
	}
	for _, id := range r.disks.renew(order.Disks) {
		l.send(control.RunReport{Left: id})
	}
}

// until is how long to wait for the next try: longer where a person has to do something first, since each refusal is an audit record.
func (r *runner) until(err error) time.Duration {
	switch refusal.CodeOf(err) {
	case refusal.KeyForbids, refusal.Denied, refusal.Locked:
		return max(r.poll, min(r.slowPoll, time.Until(r.outage.until)))
	}
	return r.poll
}

// tell says why the disks are away, each reason once.
func (r *runner) tell(err error) {
	e := refusal.From(err)
	if text := fmt.Sprint(e.Code, e.Message); text != r.outage.told {
		r.outage.told = text
		r.Say("server %s waits for its disks until %s: %s; %s", r.server.Name, r.outage.until.Format(time.TimeOnly), e.Message, e.Hint)
	}
}

// give ends QEMU, whose disks it may not have.
func (r *runner) give(err error) {
	e := refusal.From(err)
	r.result = err
	r.Say("server %s is switched off: %s; %s", r.server.Name, e.Message, e.Hint)
	r.switchOff("the guest was switched off without its disks: " + e.Message)
}
