package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// startHow is how servers are started.
type startHow struct {
	reconnect  time.Duration
	foreground bool
}

// defaultReconnect is how long a server waits for a daemon that has gone; more than maxReconnect QEMU may not take.
const (
	defaultReconnect = 5 * time.Minute
	maxReconnect     = 365 * 24 * time.Hour
)

func (a *app) serverStart() *cobra.Command {
	var how startHow
	cmd := &cobra.Command{
		Use: "start SERVER...", Short: "Run servers, with their disks attached",
		Long: `Attach all disks of a server, all or none, and run QEMU on them. It runs as you, in a process that stays behind, the server's runner, which holds no key. The disks
stay attached as long as the runner does: however QEMU or the runner ends, they are detached and their keys wiped. Where a key can't be used nothing is started or attached.

When the daemon restarts the runner has the disks attached again, where the keys allow that, and the guest goes on; its reads and writes wait meanwhile, for as long as --reconnect
says, then the server ends. SIGTERM to the runner shuts the guest down, as 'server stop' does. --foreground is for service managers, which start it as nbdcrypt-server@SERVER.service
does; what the runner has to say goes to stderr then, and to the system's log else.

Several servers are started side by side; one that fails keeps none from starting, and its exit code is the command's. QEMU is Debian's package qemu-system-x86.`,
		Example:           "  nbdcrypt server start web1\n  nbdcrypt server start web1 web2 web3\n  nbdcrypt server start web1 --foreground --reconnect 10m",
		Args:              severalNames("SERVER"),
		ValidArgsFunction: a.completeServers,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if how.reconnect < 0 || how.reconnect > maxReconnect || how.reconnect%time.Second != 0 {
				return usage(cmd, "--reconnect is in whole seconds, and a year at most, not %v", how.reconnect)
			}
			if how.foreground && len(args) > 1 {
				return usage(cmd, "--foreground is for one server, not %d", len(args))
			}
			if err := a.machine.qemu(); err != nil {
				return err
			}
			if parent, isChild := a.parent(); isChild {
				return parent.runServer(cmd, a, args[0], how)
			}
			if how.foreground {
				return a.runInFront(cmd, args[0], how)
			}
			started, err := a.startServers(cmd, args, how)
			if err != nil {
				return err
			}
			people := isNow
			if len(args) == 1 {
				people = printServer
			}
			return a.someServers(cmd, started, notStarted, people)
		}),
	}
	cmd.Flags().DurationVar(&how.reconnect, "reconnect", defaultReconnect, "how long the guest waits for a daemon that has gone; 0s: not at all")
	cmd.Flags().BoolVar(&how.foreground, "foreground", false, "stay in the foreground as the server's runner")
	return cmd
}

const notStarted = "not started"

// startServers leaves a runner behind for each server, once that runs.
func (a *app) startServers(cmd *cobra.Command, names []string, how startHow) ([]did[control.Server], error) {
	return each(a, cmd, "server start", names, func(_ context.Context, _ *control.Client, name string) (s control.Server, err error) {
		args := []string{"server", "start", "--project", a.project, "--reconnect", how.reconnect.String()}
		if a.run != "" {
			args = append(args, "--run", a.run)
		}
		o, err := a.background(cmd, "the runner of server "+name, append(args, "--", name))
		if err == nil {
			s = *o.Server
		}
		s.Warnings = append(o.Said, s.Warnings...)
		return s, err
	})
}

// errNotKept ends a run whose parent has gone before it was told: nobody knows of the server then.
var errNotKept = errors.New("who started the server has gone")

// runServer runs a server in the background. What there is to say goes to the parent until the server runs, and to the system's log from then on.
func (p *parent) runServer(cmd *cobra.Command, a *app, name string, how startHow) error {
	ctx, stop := context.WithCancelCause(cmd.Context())
	defer stop(nil)
	log := newVoice(toSyslog)
	defer log.close()
	r := &running{say: log.say}
	err := r.run(ctx, a, name, how, func(s control.Server, said []string) {
		err := p.tell(outcome{Server: &s, Said: said})
		if err == nil {
			err = alone()
		}
		if err != nil {
			stop(errNotKept)
		}
	})
	switch {
	case !r.hasStarted():
		return p.tell(outcome{Error: control.ErrorOf(err), Said: r.said})
	case err != nil:
		e := refusal.From(err)
		log.say("server %s: %s; %s", name, e.Message, e.Hint)
	}
	return err
}

// runInFront runs a server in this process until it ends.
func (a *app) runInFront(cmd *cobra.Command, name string, how startHow) error {
	loud := newVoice(func(text string) { a.say(cmd, "%s", text) })
	defer loud.close()
	forget := context.AfterFunc(cmd.Context(), func() { notify("STOPPING=1") })
	defer forget()
	r := &running{say: loud.say}
	var printed error
	ctx, stop := context.WithCancel(cmd.Context())
	defer stop()
	err := r.run(ctx, a, name, how, func(s control.Server, said []string) {
		s.Warnings = append(said, s.Warnings...)
		if printed = a.printed(cmd, s); printed != nil {
			stop()
			return
		}
		notify("READY=1\nSTATUS=server " + s.Name + " runs")
	})
	return errors.Join(err, printed)
}
