package cli

import (
	"context"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) snapshotDelete() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "delete SNAP", Short: "Delete a snapshot and give back its space",
		Long: `Delete a snapshot. Its disk may be attached, and disks that were made of it stay as they are: what they need of it is copied upward first,
or kept for them, which is said. No key is needed for the deletion itself. Interrupted, or without the keys or the room for copying, the
snapshot is deleted all the same, and its space is given back later. Asks first, unless --yes is given.`,
		Example:           "  nbdcrypt snapshot delete before-upgrade --yes",
		Args:              wants("SNAP"),
		ValidArgsFunction: a.completeSnapshot,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			gone, err := confirmed(a, cmd, yes, func(ctx context.Context, c *control.Client, yes bool) (control.SnapshotDeleted, error) {
				return c.SnapshotDelete(ctx, args[0], yes)
			})
			if err != nil {
				return err
			}
			a.say(cmd, "snapshot %s is deleted", args[0])
			a.warn(cmd, gone.Warnings)
			return nil
		}),
	}
	yesFlag(cmd, &yes)
	return cmd
}
