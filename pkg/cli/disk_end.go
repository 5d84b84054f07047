package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) diskDelete() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "delete DISK", Short: "Delete a disk and its data",
		Long: `Delete a disk, its snapshots, their data and its wrapped data keys. Backups and images of it stay, and so do disks that were made from its snapshots.
It must be detached, and no server's; its key is not needed. Asks first, unless --yes is given.`,
		Example:           "  nbdcrypt disk delete db1 --yes",
		Args:              wants("DISK"),
		ValidArgsFunction: a.completeDisk,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			_, err := confirmed(a, cmd, yes, func(ctx context.Context, c *control.Client, yes bool) (struct{}, error) {
				return struct{}{}, c.DiskDelete(ctx, args[0], yes)
			})
			if err == nil {
				a.say(cmd, "disk %s is deleted", args[0])
			}
			return err
		}),
	}
	yesFlag(cmd, &yes)
	return cmd
}

func (a *app) diskEscrow() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "escrow DISK", Short: "Print a disk's data keys, for opening its bytes without nbdcrypt",
		Long: `Print the data key of each layer in hex, in clear: who has it can read the disk's files for ever, whatever happens to the
key store. dm-crypt opens them as aes-xts-plain64. Asks first, unless --yes is given.`,
		Example:           "  nbdcrypt disk escrow db1 --yes --json > /media/safe/db1.json",
		Args:              wants("DISK"),
		ValidArgsFunction: a.completeDisk,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if err := a.hide(); err != nil {
				return err
			}
			e, err := confirmed(a, cmd, yes, func(ctx context.Context, c *control.Client, yes bool) (control.Escrow, error) {
				return c.DiskEscrow(ctx, args[0], yes)
			})
			if err != nil {
				return err
			}
			return a.result(cmd, e, func(w io.Writer) { printEscrow(w, e) })
		}),
	}
	yesFlag(cmd, &yes)
	return cmd
}

func printEscrow(w io.Writer, e control.Escrow) {
	table(w, func(t io.Writer) {
		fmt.Fprintf(t, "cipher\t%s\n", e.Cipher)
		fmt.Fprintf(t, "sector size\t%d\n", e.SectorSize)
		for _, layer := range e.Layers {
			fmt.Fprintf(t, "layer\t%s\nkey\t%s\n", layer.ID, layer.Key)
		}
	})
}
