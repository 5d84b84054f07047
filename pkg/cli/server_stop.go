package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/vm"
)

func (a *app) serverStop() *cobra.Command {
	var timeout time.Duration
	var force, yes bool
	cmd := &cobra.Command{
		Use: "stop SERVER...", Short: "Shut servers down, and detach their disks",
		Long: `Ask the guest to shut down, as the power button does, then flush and detach its disks and wipe their keys. A guest that has not shut down when --timeout is over is switched
off, and so is each one at once with --force: as after a power cut it has what it flushed.

Where the key of one of its disks is not usable, so that the server could not be started again, this asks first, unless --yes is given. Several servers are stopped side by side.`,
		Example:           "  nbdcrypt server stop web1\n  nbdcrypt server stop web1 web2 --timeout 2m\n  nbdcrypt server stop web1 --force",
		Args:              severalNames("SERVER"),
		ValidArgsFunction: a.completeServers,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			how := control.ServerStop{Force: force}
			switch changed := cmd.Flags().Changed("timeout"); {
			case changed && force:
				return usage(cmd, "--timeout and --force exclude each other: with --force nothing is waited for")
			case timeout <= 0:
				return usage(cmd, "--timeout is more than nothing, not %v; --force waits for nothing", timeout)
			case changed:
				how.Timeout = timeout.String()
			}
			stopped, err := a.stopServers(cmd, args, how, yes)
			if err != nil {
				return err
			}
			return a.someServers(cmd, stopped, "not stopped", isNow)
		}),
	}
	cmd.Flags().DurationVar(&timeout, "timeout", vm.DefaultPatience, "how long the guest may take to shut down")
	cmd.Flags().BoolVar(&force, "force", false, "switch it off at once; what the guest has not flushed is lost")
	yesFlag(cmd, &yes)
	return cmd
}

// stopServers stops servers; those for which a yes is needed are asked for when the others are done, one after the other.
func (a *app) stopServers(cmd *cobra.Command, names []string, how control.ServerStop, yes bool) ([]did[control.Server], error) {
	stop := func(names []string, yes bool) ([]did[control.Server], error) {
		return each(a, cmd, "server stop", names, func(ctx context.Context, c *control.Client, name string) (control.Server, error) {
			return c.ServerStop(ctx, name, how, yes)
		})
	}
	all, err := stop(names, yes)
	if err != nil || yes {
		return all, err
	}
	for i, d := range all {
		if refusal.CodeOf(d.err) != refusal.Confirm {
			continue
		}
		if all[i].err = a.confirm(cmd, refusal.From(d.err)); all[i].err != nil {
			continue
		}
		again, err := stop([]string{d.name}, true)
		if err != nil {
			return nil, err
		}
		all[i] = again[0]
	}
	return all, nil
}
