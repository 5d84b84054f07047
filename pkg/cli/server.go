package cli

import (
	"context"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) server() *cobra.Command {
	return group("server", "Virtual machines on the project's disks",
		`A server is a virtual machine that QEMU runs on this host, with a system disk that is made of an image and up to 23 data disks. Its disks are attached while it
runs, all of them or none, and at no other time. Names work wherever ids do.`,
		"  nbdcrypt server create web1 --image golden --data-disk size=10G,encrypted\n  nbdcrypt server start web1\n  nbdcrypt server console web1\n  nbdcrypt server stop web1",
		a.serverCreate(), a.serverList(), a.serverShow(), a.serverStart(), a.serverStop(), a.serverConsole(), a.serverAttach(), a.serverDetach(), a.serverDelete())
}

func (a *app) serverList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the project's servers",
		Long:    "List the servers of the project, and what they are doing.",
		Example: "  nbdcrypt server list --json",
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			servers, err := talk(a, cmd, func(ctx context.Context, c *control.Client) ([]control.Server, error) { return c.ServerList(ctx) })
			if err != nil {
				return err
			}
			return list(a, cmd, servers, "No servers: `nbdcrypt server create NAME --image IMAGE` makes one.",
				"NAME STATUS CPUS MEMORY DISKS IMAGE GROUP CREATED ID", func(s control.Server) []string {
					return []string{s.Name, s.Status, strconv.Itoa(s.CPUs), humanSize(s.Memory), strconv.Itoa(len(s.Disks)), imageOf(s.Image), groupOf(s.Group), moment(s.Created), s.ID}
				})
		}),
	}
}

func (a *app) serverDelete() *cobra.Command {
	var yes, keep bool
	cmd := &cobra.Command{
		Use: "delete SERVER", Short: "Delete a server and its disks",
		Long: `Delete a server that is stopped, its disks, their snapshots and their data. With --keep-disks the disks stay, and the system disk can be given to another server.
Their keys are not needed. Asks first, unless --yes is given.`,
		Example:           "  nbdcrypt server delete web1 --yes\n  nbdcrypt server delete web1 --keep-disks --yes",
		Args:              wants("SERVER"),
		ValidArgsFunction: a.completeServer,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			_, err := confirmed(a, cmd, yes, func(ctx context.Context, c *control.Client, yes bool) (struct{}, error) {
				return struct{}{}, c.ServerDelete(ctx, args[0], keep, yes)
			})
			if err == nil {
				a.say(cmd, "server %s is deleted%s", args[0], map[bool]string{true: "; its disks stay"}[keep])
			}
			return err
		}),
	}
	yesFlag(cmd, &yes)
	cmd.Flags().BoolVar(&keep, "keep-disks", false, "leave its disks")
	return cmd
}

// oneServer makes a call that is answered with a server, and prints it.
func (a *app) oneServer(cmd *cobra.Command, fn func(context.Context, *control.Client) (control.Server, error)) error {
	s, err := talk(a, cmd, fn)
	if err != nil {
		return err
	}
	return a.printed(cmd, s)
}

func (a *app) printed(cmd *cobra.Command, s control.Server) error {
	s.Disks = control.List(s.Disks)
	a.warn(cmd, s.Warnings)
	return a.result(cmd, s, func(w io.Writer) { printServer(w, s) })
}
