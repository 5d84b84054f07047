package blockdev

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
)

// errNotTaken tells that the kernel does not know yet that a connection is dead. It will.
var errNotTaken = errors.New("the kernel has not noticed yet that a connection is dead")

// ErrDisconnected tells that the device is not connected any more, or was told to disconnect and is only there because somebody has it open.
var ErrDisconnected = errors.New("it was disconnected")

// Reconnect gives the kernel new connections for those that have died.
func (d *Device) Reconnect(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	dead, err := ended(d.links, 0)
	if err != nil {
		return err
	}
	for _, old := range dead {
		l, err := open(ctx, d.config)
		if err != nil {
			return err
		}
		if err := d.give(ctx, l); err != nil {
			return errors.Join(err, l.socket.Close())
		}
		d.links = append(slices.DeleteFunc(d.links, func(l *link) bool { return l == old }), l)
		old.socket.Close()
	}
	if d.adopted {
		return d.refill(ctx)
	}
	return nil
}

// ours refuses a device that is somebody else's: the number may be in other hands by now.
func (d *Device) ours() error {
	name, is, err := Backend(d.config.Path)
	if err != nil || !is || name != d.config.Identifier {
		return errors.Join(err, fmt.Errorf("%s is another's: %w", d.config.Path, ErrDisconnected))
	}
	return nil
}

// give hands one connection over. The kernel takes several in one message, but tells of none what became of it; and a size in the same
// message would have it wait for requests that wait for these sockets.
func (d *Device) give(ctx context.Context, l *link) error {
	if err := d.like(l); err != nil {
		return err
	}
	if err := d.ours(); err != nil {
		return err
	}
	data, err := d.reconfigureMessage(l)
	if err != nil {
		return err
	}
	switch err := once(ctx, cmdReconfigure, data); {
	case errors.Is(err, syscall.EINVAL):
		return fmt.Errorf("%s takes no connections: %w", d.config.Path, ErrDisconnected)
	case err != nil:
		return refused(d.config.Path, "reconnecting", err)
	}
	is, err := l.taken()
	if err == nil && !is {
		err = errNotTaken
	}
	return err
}
