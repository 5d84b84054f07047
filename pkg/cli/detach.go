package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) detach() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "detach DISK", Short: "End what attach began: flush the disk and wipe its key",
		Long: `Let requests in flight finish, flush the disk, disconnect its clients and wipe its key from memory. Where the disk's key is
not usable, so that it could not be attached again, or where another host has it attached, this asks first, unless --yes is given.`,
		Example:           "  nbdcrypt detach db1",
		Args:              wants("DISK"),
		ValidArgsFunction: a.completeDisk,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			gone, err := confirmed(a, cmd, yes, func(ctx context.Context, c *control.Client, yes bool) (control.Detached, error) {
				return c.Detach(ctx, args[0], yes)
			})
			if err != nil {
				return err
			}
			a.warn(cmd, gone.Warnings)
			return a.result(cmd, gone, func(w io.Writer) { printDetached(w, gone) })
		}),
	}
	yesFlag(cmd, &yes)
	return cmd
}

func printDetached(w io.Writer, gone control.Detached) {
	if gone.Clients == 0 {
		fmt.Fprintf(w, "%s is detached\n", gone.Disk)
		return
	}
	fmt.Fprintf(w, "%s is detached; %s disconnected\n", gone.Disk, count(gone.Clients, "client was", "clients were"))
}
