package blockdev

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"nbdcrypt/pkg/refusal"
)

// Adopt takes over a connected device that nobody keeps any more; Identifier must be what it is called, and Export what is behind it. Its sockets
// are the kernel's alone by now, and can't be watched. A spare connection stands in for them: it ends when the server does, and the kernel,
// which is offered it at each look, takes it for one that has died. Timeout and Reconnect are the device's from now on.
func Adopt(ctx context.Context, c Config) (*Device, error) {
	d, err := newDevice(c)
	if err != nil {
		return nil, err
	}
	d.adopted = true
	if err := d.adopt(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	go d.listen()
	return d, nil
}

func (d *Device) adopt(ctx context.Context) error {
	if err := d.ours(); err != nil {
		return refusal.New(refusal.Busy, "attach the disk with --device auto", "%w", err)
	}
	sectors, err := here.line(here.block(d.config.Path, "size"))
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(sectors, 10, 64)
	if err != nil {
		return fmt.Errorf("the size of %s: %w", d.config.Path, err)
	}
	if d.spare, err = open(ctx, d.config); err != nil {
		return err
	}
	d.owner, d.size, d.flags = d.spare.owner, n*512, d.spare.info.Flags
	if err := d.like(d.spare); err != nil {
		return err
	}
	data, err := d.limitsMessage()
	if err != nil {
		return err
	}
	return refused(d.config.Path, "adopting", once(ctx, cmdReconfigure, data))
}

// refill gives the kernel the spare connection for one that is dead, and then others, until it takes no more. The last one is the spare.
func (d *Device) refill(ctx context.Context) error {
	if d.spare != nil {
		if dead, err := ended([]*link{d.spare}, 0); err != nil || len(dead) > 0 {
			d.spare.socket.Close()
			d.spare = nil
		}
	}
	for {
		if d.spare == nil {
			l, err := open(ctx, d.config)
			if err != nil {
				return err
			}
			d.spare = l
		}
		if err := d.give(ctx, d.spare); errors.Is(err, errNotTaken) {
			return nil // all are alive, as far as it knows
		} else if err != nil {
			return err
		}
		d.links, d.spare = append(d.links, d.spare), nil
	}
}

// offer tells whether one of the kernel's connections had died. The server is the one that the spare connection was opened to, since it lives.
func (d *Device) offer(ctx context.Context) (dead bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.spare == nil || d.spare.told {
		return false // there is an outage, and whoever mends it asks first
	}
	err := d.give(ctx, d.spare)
	if err == nil {
		d.links, d.spare = append(d.links, d.spare), nil
	}
	return err == nil || errors.Is(err, ErrDisconnected)
}
