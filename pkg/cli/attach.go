package cli

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) attach() *cobra.Command {
	var how control.Attach
	cmd := &cobra.Command{
		Use: "attach DISK", Short: "Make a disk readable on this host",
		Long: `Unwrap the disk's key and export the disk over NBD, until it is detached. The export opens for you, for root, and for
whom --allow names. Ready-made lines for nbd-client, QEMU and nbdfuse are printed.`,
		Example:           "  nbdcrypt attach db1\n  nbdcrypt attach db1 --read-only --allow alice --allow bob",
		Args:              wants("DISK"),
		ValidArgsFunction: a.completeDisk,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			at, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.Attached, error) {
				return c.Attach(ctx, args[0], how)
			})
			if err != nil {
				return err
			}
			a.warn(cmd, at.Warnings)
			return a.result(cmd, at, func(w io.Writer) { printAttached(w, at) })
		}),
	}
	cmd.Flags().BoolVar(&how.ReadOnly, "read-only", false, "export it for reading only")
	cmd.Flags().StringArrayVar(&how.Allow, "allow", nil, "a user who may open the export too (may be repeated)")
	_ = cmd.RegisterFlagCompletionFunc("allow", cobra.NoFileCompletions) // the flag exists: it can't fail
	return cmd
}
