package cli

import (
	"context"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) diskRekey() *cobra.Command {
	return &cobra.Command{
		Use: "rekey DISK", Short: "Give a disk another data key, and encrypt all of it anew",
		Long: `Draw another data key for a disk, and copy all of its data under it, while the disk may be attached and used. The key that the disk is under stays;
disk rewrap changes that. The old data key goes, unless snapshots, images or other disks stand on what it encrypts: they keep it, which is
said. The pool has to have room for the disk's data once more. Interrupted, by a detach too, it goes on with the same command, the disk's
next attach, or the daemon's next start.`,
		Example:           "  nbdcrypt disk rekey db1",
		Args:              wants("DISK"),
		ValidArgsFunction: a.completeDisk,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			return a.oneDisk(cmd, func(ctx context.Context, c *control.Client) (control.Disk, error) {
				return c.DiskRekey(ctx, args[0])
			})
		}),
	}
}
