package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

const (
	// lookEvery is how often the daemon looks at what is due.
	lookEvery = 10 * time.Second
	// notifyDays is how long before a deletion it is told of, where nothing else is said.
	notifyDays = 7
)

// watchDue does what becomes due until the daemon stops.
func (d *Daemon) watchDue(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-d.life.Done():
			return
		case <-tick.C:
			if d.isOpen.Load() {
				d.lookAtDue(d.life)
			}
		}
	}
}

// lookAtDue does what is due now. While the clock is doubted nothing is, but to finish what was begun (rule B3).
func (d *Daemon) lookAtDue(ctx context.Context) {
	d.dueMu.Lock()
	defer d.dueMu.Unlock()
	kept, err := d.clock.Keep(ctx, newRequest())
	if err != nil {
		d.o.Log.Error("the time can't be kept", "err", err)
	} else if kept { // without a record of it, a start after a crash would take it for a verb that went unrecorded
		d.recordOwn("clock.kept", "", d.clock.Mark().Format(time.RFC3339), nil)
	}
	now := d.clock.Latest()
	_, doubted := d.clock.Ahead()
	var failing []string
	for _, due := range d.keys.Due(now) {
		if doubted && !due.Begun() {
			continue
		}
		if err := d.doDue(ctx, due); err != nil {
			failing = append(failing, dueFailed(due, err))
			d.o.Log.Error(failing[len(failing)-1])
		}
	}
	d.mu.Lock()
	d.failing = failing
	d.mu.Unlock()
	d.tellDeletions(now)
	d.lookAtPool()
}

func (d *Daemon) doDue(ctx context.Context, due keystore.Due) error {
	switch due.Kind {
	case keystore.DueDeletion, keystore.DueErase:
		return d.deleteDue(ctx, due)
	case keystore.DueExpiry:
		return d.expireDue(ctx, due)
	case keystore.DueRotation:
		return d.rotateDue(ctx, due)
	}
	return nil
}

// deleteDue destroys a key at its date. That waits while it could not be recorded.
func (d *Daemon) deleteDue(ctx context.Context, due keystore.Due) error {
	if err := d.canRecord(); err != nil {
		return err
	}
	_, err := d.keys.DeleteDue(ctx, newRequest(), due)
	if errors.Is(err, catalog.ErrNotFound) || refusal.CodeOf(err) == refusal.KeyForbids {
		return nil // a person was faster
	}
	d.recordOwn("key.deleted", due.Project, due.ID, err)
	if err != nil {
		return err
	}
	d.tellDeleted(due.Project, due.Alias, due.ID)
	return nil
}

// tellFinished records what a run before this one was cut off in, and this start has brought to its end.
func (d *Daemon) tellFinished() {
	for _, due := range d.keys.Finished() {
		switch due.Kind {
		case keystore.DueErase:
			d.recordOwn("key.deleted", due.Project, due.ID, nil)
			d.tellDeleted(due.Project, due.Alias, due.ID)
		case keystore.DueExpiry:
			d.recordOwn("key.expired", due.Project, due.ID, nil)
			d.tellExpired(due)
		}
	}
	for _, finished := range d.servers.Finished() {
		d.recordOwn("server.finished", "", finished, nil)
	}
}

func (d *Daemon) tellDeleted(project, alias, id string) {
	d.notify(event{Event: eventKeyDeleted, Project: project, Key: alias, KeyID: id,
		Message: fmt.Sprintf("key %s of project %s is destroyed: what is under it can't be attached any more", alias, project)})
}

// dueFailed says what is tried again and again; `status` tells of it until it is done.
func dueFailed(due keystore.Due, err error) string {
	return fmt.Sprintf("key %s (%s) of project %s: %s; it is tried again", due.Alias, due.ID, due.Project, refusal.From(err).Message)
}

// tellDeletions tells once a day of each key whose deletion is near.
func (d *Daemon) tellDeletions(now time.Time) {
	today := now.Format(time.DateOnly)
	for _, due := range d.keys.Due(now.AddDate(0, 0, d.o.NotifyDays)) {
		if due.Kind != keystore.DueDeletion || d.dueDay[due.ID] == today {
			continue
		}
		d.dueDay[due.ID] = today
		d.notify(event{Event: eventDeletionDue, Project: due.Project, Key: due.Alias, KeyID: due.ID,
			Message: fmt.Sprintf("key %s of project %s is destroyed on %s; `nbdcrypt key cancel-deletion %s --project %s` keeps it",
				due.Alias, due.Project, due.At.UTC().Format(time.RFC3339), due.Alias, due.Project)})
	}
}

// clockWarnings say what is wrong with the clock now.
func (d *Daemon) clockWarnings() []string {
	if err := d.clock.Damage(); err != nil {
		return []string{fmt.Sprintf("the latest time that was seen can't be read (%v): no key is destroyed on its own until `nbdcrypt clock accept` "+
			"says that the clock is right", err)}
	}
	if ahead, doubted := d.clock.Ahead(); doubted {
		return []string{fmt.Sprintf("the clock is %s ahead of what is known to have gone by: no key is destroyed on its own until it is set right, "+
			"or `nbdcrypt clock accept` says that it is", days(ahead))}
	}
	if behind, yes := d.clock.Behind(); yes {
		return []string{fmt.Sprintf("the clock is %v behind a time that was seen before; set it right", behind.Round(time.Second))}
	}
	return nil
}

func days(t time.Duration) string { return fmt.Sprintf("%d days", int(t.Hours()/24)) }
