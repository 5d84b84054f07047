package keeper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"nbdcrypt/pkg/blockdev"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

const (
	// firstTry is how long a dead link is left before it is looked at: all connections that die with a daemon are mended together then.
	firstTry = 200 * time.Millisecond
	// nextTry is how long after that it is tried again; slowTry where a person has to do something first: each refusal is an audit record.
	nextTry = 500 * time.Millisecond
	slowTry = 10 * time.Second
	// callTime is how long after the end of an outage the daemon may take to answer the last call.
	callTime = 30 * time.Second
)

// outage is the time in which the link is dead.
type outage struct {
	until time.Time
	said  string // what was said last of why it is dead
	held  bool   // the daemon has the disk attached for us
}

// dead begins an outage.
func (k *keeper) dead() {
	if k.outage == nil {
		k.outage = &outage{until: time.Now().Add(k.Reconnect)}
		k.retry.Reset(firstTry)
	}
}

// mend tries to give the device new connections, and tells whether all is over with it.
func (k *keeper) mend(ctx context.Context) (over bool, err error) {
	outcome, err := k.try(ctx)
	switch {
	case outcome == mended:
		if k.outage.said != "" {
			k.Say("%s is connected again", k.Device.Path())
		}
		k.outage = nil
		return false, nil
	case outcome == lost:
		return true, k.give(ctx, err)
	case outcome == gone:
		return true, nil
	case time.Now().After(k.outage.until):
		return true, k.give(ctx, k.late(err))
	}
	k.told(err)
	k.retry.Reset(k.pause(err))
	return false, nil
}

// pause is how long to wait until the next try; the last is made when the time is over.
func (k *keeper) pause(err error) time.Duration {
	switch refusal.CodeOf(err) {
	case refusal.KeyForbids, refusal.Denied:
		return max(nextTry, min(slowTry, time.Until(k.outage.until)))
	}
	return nextTry
}

// told says why the link is dead, each reason once.
func (k *keeper) told(err error) {
	r := refusal.From(err)
	if text := fmt.Sprint(r.Code, r.Message); text != k.outage.said {
		k.outage.said = text
		k.Say("%s waits for disk %s until %s: %s; %s", k.Device.Path(), k.Disk, k.outage.until.Format(time.TimeOnly), r.Message, r.Hint)
	}
}

// late is the end of an outage that took too long, with the reason of its last try.
func (k *keeper) late(err error) error {
	r := refusal.From(err)
	return refusal.New(r.Code, r.Hint, "%s was given up after %v: %w", k.Device.Path(), k.Reconnect, r)
}

// give disconnects the device, with errors for whoever uses it, and lets the daemon go of the disk where it has it for us.
func (k *keeper) give(ctx context.Context, why error) error {
	switch err := k.Device.Disconnect(ctx); {
	case errors.Is(err, blockdev.ErrHeld):
		k.Say("%s is disconnected, and is there until whoever has it open lets go of it: unmount it", k.Device.Path())
	case err != nil:
		k.Say("disconnecting %s: %v", k.Device.Path(), err)
	}
	if k.outage.held {
		if _, err := k.Client.DetachAs(ctx, k.Disk, control.DetachHow{Attachment: k.At.Attachment}); err != nil {
			k.Say("disk %s stays attached: %v", k.Disk, err)
		}
	}
	return why
}
