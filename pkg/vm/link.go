package vm

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// queue is how many reports may wait for a daemon that does not read. One that has so many orders unanswered is none.
const queue = 256

// link is the lease: the line to the daemon. A nil link is one that is not there. The loop alone sends.
type link struct {
	line   *control.Line
	cancel context.CancelCauseFunc
	out    chan control.RunReport
	sent   chan struct{} // closed when nothing more is sent
	dead   chan struct{} // closed by cut
	once   sync.Once
}

func newLink(line *control.Line, cancel context.CancelCauseFunc) *link {
	l := &link{line: line, cancel: cancel, out: make(chan control.RunReport, queue), sent: make(chan struct{}), dead: make(chan struct{})}
	go l.write()
	return l
}

func (l *link) write() {
	defer close(l.sent)
	for {
		select {
		case report, more := <-l.out:
			if !more {
				return
			}
			if l.line.Send(report) != nil {
				l.cut()
			}
		case <-l.dead:
			return
		}
	}
}

// send never waits.
func (l *link) send(report control.RunReport) {
	if l == nil {
		return
	}
	select {
	case l.out <- report:
	default:
		l.cut()
	}
}

// end sends what is left, within a time, and closes the line.
func (l *link) end(within time.Duration) {
	if l == nil {
		return
	}
	close(l.out)
	select {
	case <-l.sent:
	case <-time.After(within):
	}
	l.cut()
}

// cut closes the line; who waits for it hears it.
func (l *link) cut() {
	if l != nil {
		l.once.Do(func() { close(l.dead); _ = l.line.Close(); l.cancel(nil) })
	}
}

// lease asks for the server's disks, and reads what they are. Who has until to answer may be zero for no bound.
func (r *runner) lease(ctx context.Context, until time.Time, server string, continues []control.Continues) (*link, control.RunOrder, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	late := errors.New("late")
	if !until.IsZero() {
		timer := time.AfterFunc(time.Until(until), func() { cancel(late) })
		defer timer.Stop()
	}
	line, err := r.Client.ServerRun(ctx, server, control.ServerRun{Token: r.token, Continues: continues})
	var order control.RunOrder
	if err == nil {
		closing := context.AfterFunc(ctx, func() { _ = line.Close() })
		defer closing()
		if order, err = first(line); err != nil {
			_ = line.Close()
		}
	}
	switch {
	case errors.Is(context.Cause(ctx), late):
		err = refusal.New(refusal.Unreachable, "its log may say why", "the daemon did not answer in time")
	case err == nil:
		return newLink(line, cancel), order, nil
	}
	cancel(nil)
	return nil, order, err
}

// first reads the first order.
func first(line *control.Line) (order control.RunOrder, err error) {
	switch err = line.Receive(&order); {
	case errors.Is(err, io.EOF):
		err = refusal.New(refusal.Unreachable, "its log says why", "the daemon closed the connection before it had lent the disks")
	case err == nil && order.Server == nil:
		err = refusal.New(refusal.Failed, "is the daemon of another version than this command? `nbdcrypt status` and `nbdcrypt version` tell", "the daemon did not say what to run")
	}
	return order, err
}

// follow brings the daemon's orders to the loop until the line ends.
func (r *runner) follow(l *link) {
	for {
		var order control.RunOrder
		if err := l.line.Receive(&order); err != nil {
			l.cut()
			r.post(func() { r.left(l) })
			return
		}
		r.post(func() { r.order(l, order) })
	}
}
