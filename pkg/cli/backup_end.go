package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) backupDelete() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "delete BACKUP", Short: "Delete a backup",
		Long: `Delete a backup, its file and its wrapped data key. One that others stand on can't be deleted: those go first. Its key is not needed. After the newest
backup of a disk was deleted the next one is a full one. Asks first, unless --yes is given.`,
		Example:           "  nbdcrypt backup delete db1-monday --yes",
		Args:              wants("BACKUP"),
		ValidArgsFunction: a.completeBackup,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			_, err := confirmed(a, cmd, yes, func(ctx context.Context, c *control.Client, yes bool) (struct{}, error) {
				return struct{}{}, c.BackupDelete(ctx, args[0], yes)
			})
			if err == nil {
				a.say(cmd, "backup %s is deleted", args[0])
			}
			return err
		}),
	}
	yesFlag(cmd, &yes)
	return cmd
}

func (a *app) backupPrune() *cobra.Command {
	var yes bool
	var keep int
	cmd := &cobra.Command{
		Use: "prune DISK --keep N", Short: "Delete the older backups of a disk",
		Long: `Delete all backups of a disk but the newest N, and those that these stand on. DISK may be deleted by now: its name or its id of then names it. Asks
first, unless --yes is given.`,
		Example:           "  nbdcrypt backup prune db1 --keep 7 --yes",
		Args:              wants("DISK"),
		ValidArgsFunction: a.completeDisk,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("keep") {
				return usage(cmd, "--keep is missing")
			}
			if keep < 1 {
				return usage(cmd, "--keep is 1 or more, not %d", keep)
			}
			pruned, err := confirmed(a, cmd, yes, func(ctx context.Context, c *control.Client, yes bool) (control.BackupPruned, error) {
				return c.BackupPrune(ctx, control.BackupPrune{Disk: args[0], Keep: keep}, yes)
			})
			if err != nil {
				return err
			}
			pruned.Deleted = control.List(pruned.Deleted)
			return a.result(cmd, pruned, func(w io.Writer) {
				for _, b := range pruned.Deleted {
					fmt.Fprintf(w, "%s of %s is deleted\n", b.Name, moment(b.Created))
				}
				if len(pruned.Deleted) == 0 {
					fmt.Fprintln(w, "nothing to delete")
				}
			})
		}),
	}
	cmd.Flags().IntVar(&keep, "keep", 0, "how many of the newest backups stay, with all that they stand on")
	_ = cmd.RegisterFlagCompletionFunc("keep", cobra.NoFileCompletions) // the flag exists: it can't fail
	yesFlag(cmd, &yes)
	return cmd
}
