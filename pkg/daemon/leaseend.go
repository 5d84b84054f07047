package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// An end that failed, such as of a disk whose last writes find no room, is tried again after endEvery, then after twice that, and so on to endAtMost.
const (
	endEvery  = time.Second
	endAtMost = time.Minute
)

// giveUp takes back what was attached for a runner that did not take it.
func (l *lease) giveUp(why string) {
	err := l.release()
	if err == nil {
		l.finish(why)
	}
	l.d.leases.rest()
	if err != nil {
		l.end(why)
	}
}

// end ends a run: its exports are shut, its disks detached and their keys wiped, however often that has to be tried. A daemon that stops sees to it itself, so that
// a guest which waits for the next one hears of no error.
func (l *lease) end(why string) {
	l.closing.Do(func() { close(l.cut) })
	l.run.Stopping()
	l.work.Wait()
	for pause := endEvery; l.d.leases.begin(); pause = min(2*pause, endAtMost) {
		err := l.release()
		if err == nil {
			l.finish(why)
			l.d.leases.rest()
			return
		}
		l.d.leases.rest()
		l.fail(err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-l.again:
		case <-l.d.life.Done():
		}
		timer.Stop()
	}
}

// fail keeps why an end failed, and tells those who wait for it.
func (l *lease) fail(err error) {
	l.d.o.Log.Error("the disks of a server that has ended can't be detached", "server", l.server.Name, "err", err)
	l.run.Failing(refusal.From(err).Message)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = err
	close(l.tried)
	l.tried = make(chan struct{})
}

// release lets go of all disks at once, so that one slow disk does not keep the others.
func (l *lease) release() error {
	list := l.attached()
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for i, at := range list {
		wg.Go(func() { errs[i] = l.let(at) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// let lets go of a disk: as if it had not been attached, where nobody could open it.
func (l *lease) let(at *leased) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*drainTime)
	defer cancel()
	one := *l.c
	one.request = newRequest()
	w := &wipe{daemon: l.d, call: &one}
	var warnings []string
	var err error
	if l.isOpen() {
		warnings, err = l.d.volumes.Detach(ctx, one.request, volume.DetachSpec{Project: l.c.project, Disk: at.a.Disk.String(), All: true, Only: at.a, Wiping: w.wiping,
			Drain: func(a *volume.Attachment) error { return l.d.drain(ctx, a, new(int)) }})
	} else {
		err = l.d.volumes.Undo(ctx, one.request, at.a, w.wiping)
	}
	if err != nil && l.isAttached(at) {
		return err
	}
	if err != nil {
		l.d.o.Log.Warn("a disk is detached, and its record may say otherwise", "disk", at.a.Name, "err", err)
	}
	l.mu.Lock()
	for _, warning := range warnings {
		l.lost = append(l.lost, "disk "+at.a.Name+": "+warning)
	}
	l.mu.Unlock()
	l.drop(at)
	return nil
}

func (l *lease) isOpen() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.opened
}

// finish records how a run ended that was begun, once nothing of it is attached.
func (l *lease) finish(why string) {
	said := slices.Concat([]string{why}, l.stranded())
	text := strings.Join(said, "; ")
	l.mu.Lock()
	lost := l.lost
	l.mu.Unlock()
	var err error
	if len(lost) > 0 {
		err = refusal.New(refusal.Failed, "", "%s", strings.Join(lost, "; "))
		text += "; " + strings.Join(lost, "; ")
	}
	l.d.recordOwn("server.ended", l.c.project, cut(l.server.Name+" "+strings.Join(said, "; ")), err)
	l.close(text)
}

// isCut tells whether the runner has gone.
func (l *lease) isCut() bool {
	select {
	case <-l.cut:
		return true
	default:
		return false
	}
}

// close has the server be stopped.
func (l *lease) close(why string) {
	l.closing.Do(func() { close(l.cut) })
	l.d.leases.remove(l)
	l.run.End(why)
	close(l.done)
}

// stranded names the disks of a server that can't be attached again, since their keys forbid it: of those that it has by now.
func (l *lease) stranded() (list []string) {
	now, err := l.d.servers.Get(context.Background(), l.c.project, l.server.ID.String())
	if err != nil {
		now = l.server
	}
	for _, disk := range now.Disks {
		if v, err := l.d.volumes.Get(context.Background(), l.c.project, disk.ID.String()); err == nil && v.Key != nil {
			if r := refusal.From(v.Key.May(keystore.Use)); r != nil {
				list = append(list, fmt.Sprintf("disk %s can't be attached again: %s", v.Name, r.Message))
			}
		}
	}
	return list
}

// left detaches a disk that the guest has given away after the order to had timed out, and takes it from the server.
func (l *lease) left(id uuid.UUID) {
	if !l.d.leases.begin() {
		return
	}
	defer l.d.leases.rest()
	at := l.leaving(id)
	if at == nil {
		return
	}
	err := l.let(at)
	if err == nil {
		_, err = l.run.Left(context.Background(), newRequest(), id)
	}
	if err != nil {
		l.d.o.Log.Error("a disk that a guest has given away is the server's still", "server", l.server.Name, "disk", at.a.Name, "err", err)
	}
	l.d.recordOwn("server.disk-left", l.c.project, id.String(), err)
}

// leaving is a data disk that the guest gives away now, nil where it is none, or has gone before: however often a runner says so, that is done and recorded once.
func (l *lease) leaving(id uuid.UUID) *leased {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, at := range l.disks {
		if at.a.Disk == id && at.role == control.DataDisk && !at.gone {
			at.gone = true
			return at
		}
	}
	return nil
}

func (l *lease) setGone(at *leased) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at.gone = true
}

func (l *lease) isGone(at *leased) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return at.gone
}

// ended waits until nothing of a run is attached any more, or until an end has failed. One that waits for its next try is tried now.
func (l *lease) ended(limit time.Duration) error {
	l.mu.Lock()
	tried := l.tried
	l.mu.Unlock()
	select {
	case l.again <- struct{}{}:
	default:
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-l.done:
		return nil
	case <-tried:
		select {
		case <-l.done: // the next try went well
			return nil
		default:
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		r := refusal.From(l.failed)
		return refusal.New(r.Code, r.Hint, "server %s has ended, and its disks can't be detached: %w", l.server.Name, l.failed)
	case <-l.d.life.Done():
		return errStopping()
	case <-timer.C:
		return refusal.New(refusal.Failed, "see why the storage does not answer; `nbdcrypt server show` tells when it has", "the disks of server %s are still being detached after %v", l.server.Name, limit)
	}
}
