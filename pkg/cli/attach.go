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
whom --allow names: a user of this machine, by name or uid; cert:NAME, who comes with a certificate in that name; or vsock:CID, a
virtual machine. A user's name stands for a certificate in that name too. Ready-made lines for nbd-client, QEMU and nbdfuse are printed.`,
		Example:           "  nbdcrypt attach db1\n  nbdcrypt attach db1 --read-only --allow alice --allow cert:backup --allow vsock:3",
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
	cmd.Flags().StringArrayVar(&how.Allow, "allow", nil, "who may open the export too: a user, cert:NAME or vsock:CID (may be repeated)")
	_ = cmd.RegisterFlagCompletionFunc("allow", cobra.NoFileCompletions) // the flag exists: it can't fail
	return cmd
}
