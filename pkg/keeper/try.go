package keeper

import (
	"context"
	"errors"
	"slices"

	"nbdcrypt/pkg/blockdev"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// outcome is what came of one try to mend the link.
type outcome int

const (
	waiting outcome = iota // it may become better
	mended
	lost // the device has to go
	gone // it has gone
)

// try asks the daemon once. An error says why the link is not mended; lost without one, that somebody detached the disk.
func (k *keeper) try(ctx context.Context) (outcome, error) {
	// The kernel waits longer than this: what it has given up must not be revived.
	ctx, cancel := context.WithDeadline(ctx, k.outage.until.Add(callTime))
	defer cancel()
	k.outage.held = false
	status, err := k.Client.Status(ctx, false)
	if err != nil {
		return waiting, err
	}
	if now := DaemonOf(status); !k.Daemon.is(now) {
		return k.attach(ctx, now)
	}
	attached, err := k.attached(ctx)
	switch {
	case refusal.CodeOf(err) == refusal.NotFound, err == nil && !attached:
		k.Say("disk %s was detached: %s is disconnected", k.Disk, k.Device.Path())
		return lost, nil
	case err != nil:
		return waiting, err
	}
	return k.reconnect(ctx)
}

// attached tells whether the disk still has the attachment that the device stands for.
func (k *keeper) attached(ctx context.Context) (bool, error) {
	disk, err := k.Client.DiskShow(ctx, k.Disk)
	return slices.ContainsFunc(disk.Attachments, func(a control.Attachment) bool { return a.ID == k.At.Attachment }), err
}

// attach has another run of the daemon attach the disk as the one before it had, and only where it is as that one left it: a file system
// that is mounted would write what it remembers over something else.
func (k *keeper) attach(ctx context.Context, daemon Daemon) (outcome, error) {
	how := k.How
	how.Continues = &control.Continues{DiskID: k.At.DiskID, Epoch: k.At.Epoch}
	at, err := k.Client.Attach(ctx, k.Disk, how)
	switch refusal.CodeOf(err) {
	case refusal.OK:
		k.At, k.Daemon = at, daemon
		k.note()
		return k.reconnect(ctx)
	case refusal.NotFound, refusal.Damaged, refusal.Usage:
		return lost, err
	}
	return waiting, err
}

func (k *keeper) reconnect(ctx context.Context) (outcome, error) {
	k.outage.held = true
	switch err := k.Device.Reconnect(ctx); {
	case errors.Is(err, blockdev.ErrDisconnected):
		return gone, nil // by whoever sees to the rest, too
	case err != nil:
		return waiting, err
	}
	return mended, nil
}
