package cli

import (
	"context"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) serverAttach() *cobra.Command {
	var system bool
	cmd := &cobra.Command{
		Use: "attach SERVER DISK", Short: "Give a server a disk",
		Long: `Make a disk of the project one of a server's data disks. It must not be another server's, nor shared. A server that runs gets it at once, so that it must not be attached then. With --system it
becomes the disk that the server boots from: for a server without one, and a disk that was one.`,
		Example:           "  nbdcrypt server attach web1 db1\n  nbdcrypt server attach web2 web1-system --system",
		Args:              wants("SERVER", "DISK"),
		ValidArgsFunction: a.completeServerAttach,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			return a.oneServer(cmd, func(ctx context.Context, c *control.Client) (control.Server, error) {
				return c.ServerAttach(ctx, args[0], control.ServerDiskChange{Disk: args[1], System: system})
			})
		}),
	}
	cmd.Flags().BoolVar(&system, "system", false, "have the server boot from it")
	return cmd
}

func (a *app) serverDetach() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "detach SERVER DISK", Short: "Take a disk from a server",
		Long: `Take a disk from a server; the disk stays, as one that can be attached or given to another. From a server that runs a data disk is unplugged first, then detached and its key
wiped: the guest has to let go of it, so unmount it there. The system disk can be taken while the server is stopped. Where the disk's key is not usable, so that it
could not be attached again, this asks first, unless --yes is given.`,
		Example:           "  nbdcrypt server detach web1 db1",
		Args:              wants("SERVER", "DISK"),
		ValidArgsFunction: a.completeServerDetach,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			s, err := confirmed(a, cmd, yes, func(ctx context.Context, c *control.Client, yes bool) (control.Server, error) {
				c.Tell(control.Job{Verb: "server detach", Resource: args[0] + " " + args[1]}) // the guest may take its time
				return c.ServerDetach(ctx, args[0], control.ServerDiskChange{Disk: args[1]}, yes)
			})
			if err != nil {
				return err
			}
			return a.printed(cmd, s)
		}),
	}
	yesFlag(cmd, &yes)
	return cmd
}
