package demo

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"

	"nbdcrypt/nbd/nbdclient"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// crash kills the daemon while a client is connected, as soon as a flush is answered.
func crash(ctx context.Context, t *tour) error {
	disk, err := ask[control.Disk](ctx, t, "disk", "create", second, "--size", "64M", "--encrypted")
	if err != nil {
		return err
	}
	if err := t.tell.all(check{disk.Key != nil && disk.Key.Alias == "evs/default", "a second disk, under evs/default", disk.Key}); err != nil {
		return err
	}
	at, err := t.attach(ctx, second)
	if err != nil {
		return err
	}
	return connected(ctx, at.URI, func(c *nbdclient.Client) error {
		t.tell.note("(this program speaks NBD itself here, to be quick)")
		if err := write(t, c, t.letters.last); err != nil {
			return err
		}
		if err := flush(t, c); err != nil {
			return err
		}
		return t.kill(ctx)
	})
}

// kill ends the daemon without a word of warning, and makes sure that it ended so.
func (t *tour) kill(ctx context.Context) error {
	t.tell.command("kill", "-9", fmt.Sprint(t.daemon.PID))
	if err := t.daemon.Signal(ctx, syscall.SIGKILL); err != nil {
		return err
	}
	var exit *exec.ExitError
	killed := errors.As(t.daemon.How(), &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
	if err := t.tell.all(check{killed, "the daemon is dead", t.daemon.How()}); err != nil {
		return err
	}
	t.daemon = nil
	return nil
}

func restart(ctx context.Context, t *tour) error {
	if err := t.serve(ctx); err != nil {
		return err
	}
	s, err := ask[control.Status](ctx, t, "status")
	if err != nil {
		return err
	}
	for _, warning := range s.Warnings {
		t.tell.said("warning: " + warning)
	}
	if err := t.tell.all(check{s.Disks == 3 && s.Attached == 0, "all three disks are there; a crash counts as a detach", s}); err != nil {
		return err
	}
	at, err := t.attach(ctx, second)
	if err != nil {
		return err
	}
	read, err := rawNBD{}.get(ctx, t, at.URI, []letter{t.letters.last})
	if err != nil {
		return err
	}
	if err := t.compare([]letter{t.letters.last}, read); err != nil {
		return err
	}
	return t.detach(ctx, second)
}

// stop ends the daemon as a service manager does.
func stop(ctx context.Context, t *tour) error {
	pid := t.daemon.PID
	t.tell.command("kill", fmt.Sprint(pid))
	if err := t.daemon.Signal(ctx, syscall.SIGTERM); err != nil {
		return err
	}
	if err := t.tell.all(check{t.daemon.How() == nil, "the daemon has ended in good order (exit code 0)", t.daemon.How()}); err != nil {
		return err
	}
	t.daemon = nil
	return t.refused(ctx, refusal.Unreachable, "status")
}
