package keeper

import (
	"cmp"
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"nbdcrypt/pkg/blockdev"
	"nbdcrypt/pkg/control"
)

// Client asks the daemon, in the disk's project: a control.Client.
type Client interface {
	Status(ctx context.Context, keys bool) (control.Status, error)
	DiskShow(ctx context.Context, disk string) (control.Disk, error)
	Attach(ctx context.Context, disk string, how control.Attach) (control.Attached, error)
	DetachAs(ctx context.Context, disk string, how control.DetachHow) (control.Detached, error)
}

// Device is what is kept: a blockdev.Device.
type Device interface {
	Path() string
	Watch(ctx context.Context) <-chan blockdev.Event
	Reconnect(ctx context.Context) error
	Disconnect(ctx context.Context) error
	Note(line string) error
}

// Daemon tells one run of the daemon from another.
type Daemon struct {
	PID     int
	Started time.Time
}

// DaemonOf is the run that a status is of.
func DaemonOf(s control.Status) Daemon { return Daemon{PID: s.PID, Started: s.Started} }

func (d Daemon) is(other Daemon) bool { return d.PID == other.PID && d.Started.Equal(other.Started) }

// Options say what is kept.
type Options struct {
	Client Client
	Disk   string
	// How is how the disk was attached, and is attached again; At is what came of it, by the run Daemon.
	How    control.Attach
	At     control.Attached
	Daemon Daemon
	Device Device
	// Reconnect is how long the link may be dead.
	Reconnect time.Duration
	// End ends it all in good order when a signal asks for it. An error is a refusal, and all stays as it is.
	End func(context.Context) error
	// Say tells the user. It must not wait for whoever listens: he may wait for the device.
	Say func(format string, args ...any)
}

// Run keeps the device until it is disconnected, which is no error. That ctx ends stands for a signal, which may have come before.
func Run(ctx context.Context, o Options) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	forget := context.AfterFunc(ctx, func() {
		select {
		case signals <- syscall.SIGTERM:
		default: // the same one came by itself
		}
	})
	defer forget()
	steady()
	return keep(context.WithoutCancel(ctx), o, signals)
}

func keep(ctx context.Context, o Options, signals <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	k := &keeper{Options: o, signals: signals, events: o.Device.Watch(ctx), retry: time.NewTimer(time.Hour)}
	k.retry.Stop()
	k.note()
	return k.loop(ctx)
}

// keeper is a Run. All of it belongs to one goroutine, but for End, which has one of its own: what it unmounts may have to wait for the
// link to be mended.
type keeper struct {
	Options
	signals <-chan os.Signal
	events  <-chan blockdev.Event
	ending  chan error // while End is at work
	retry   *time.Timer
	outage  *outage // while the link is dead
}

func (k *keeper) loop(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-k.signals:
			k.end(ctx)
		case err := <-k.ending:
			if k.ending = nil; err == nil {
				return nil
			}
			k.Say("%s stays: %v", k.Device.Path(), err)
		case event, more := <-k.events:
			if !more || event == blockdev.Gone {
				return k.ended()
			}
			k.dead()
		case <-k.retry.C:
			if over, err := k.mend(ctx); over {
				// The device has gone: an end that was begun comes to its own.
				return cmp.Or(err, k.ended())
			}
		}
	}
}

// end begins the end, once.
func (k *keeper) end(ctx context.Context) {
	if k.ending == nil {
		k.ending = make(chan error, 1)
		go func(done chan<- error) { done <- k.End(ctx) }(k.ending)
	}
}

// ended waits for an end that was begun: the device has gone, and it has still to be detached.
func (k *keeper) ended() error {
	if k.ending == nil {
		return nil
	}
	return <-k.ending
}
