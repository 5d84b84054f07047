package blockdev

import (
	"context"
	"slices"
	"time"
)

// Event is news of a device.
type Event int

const (
	// Dead tells that connections have died.
	Dead Event = iota + 1
	// Gone tells that the device was disconnected, or belongs to somebody else by now.
	Gone
)

const (
	// lookTime is how often sysfs is looked at: nobody is told when a device is disconnected.
	lookTime = time.Second
	// soon is that while all links are dead, as they are when it is.
	soon = 50 * time.Millisecond
)

// Watch tells what happens to the device. The channel is closed after Gone, or when ctx ends. It looks at the sockets themselves: what
// the driver tells by netlink of dead links it forgets where memory is short.
func (d *Device) Watch(ctx context.Context) <-chan Event {
	events := make(chan Event)
	go func() {
		defer close(events)
		for ctx.Err() == nil {
			event := d.look(ctx)
			if event == 0 {
				continue
			}
			select {
			case events <- event:
			case <-ctx.Done():
			}
			if event == Gone {
				return
			}
		}
	}()
	return events
}

// look waits for an event for as long as a look may take.
func (d *Device) look(ctx context.Context) Event {
	began := time.Now()
	// A look that fails says nothing; the next one may.
	if name, is, err := Backend(d.config.Path); err == nil && (!is || name != d.config.Identifier) {
		return Gone
	}
	if d.offer(ctx) {
		return Dead
	}
	links, pause := d.untold(), lookTime
	if len(links) == 0 {
		pause = soon
	}
	dead, err := ended(links, int(pause/time.Millisecond))
	if err != nil {
		time.Sleep(lookTime - time.Since(began))
		return 0
	}
	if len(dead) == 0 {
		return 0
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range dead {
		l.told = true
	}
	return Dead
}

// untold are the links whose end nobody was told of.
func (d *Device) untold() []*link {
	d.mu.Lock()
	defer d.mu.Unlock()
	links := slices.Clone(d.links)
	if d.spare != nil {
		links = append(links, d.spare)
	}
	return slices.DeleteFunc(links, func(l *link) bool { return l.told })
}
