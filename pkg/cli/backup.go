package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) backup() *cobra.Command {
	return group("backup", "Copies of disks in files of their own",
		`A backup is one file, as encrypted as its disk, that can be carried anywhere, checked there with a public key, and made a disk again here with 'disk create
--from-backup'. The first backup of a disk is a full one; the next ones have what was written since. Backups outlive their disk. Names work wherever ids do.`,
		"  nbdcrypt backup create db1 db1-monday\n  nbdcrypt backup list --disk db1\n  nbdcrypt backup export db1-monday - | ssh elsewhere 'cat > db1-monday.nbdbackup'",
		a.backupCreate(), a.backupList(), a.backupShow(), a.backupVerify(), a.backupExport(), a.backupImport(), a.backupDelete(), a.backupPrune(), a.backupKey())
}

func (a *app) backupCreate() *cobra.Command {
	var full bool
	cmd := &cobra.Command{
		Use: "create DISK NAME", Short: "Back a disk up",
		Long: `Write what a disk holds now into a file of the backup directory, attached or not: exactly the writes that were answered before, while I/O goes on. Of a
disk that has a backup already it takes what was written since, unless --full is given, or the disk was rolled back or re-keyed, or 63 stand on each other
already; that is said. The backup is encrypted as the disk is, under the key that the disk has now, with a data key of its own. Until it is done the
disk can't be attached, detached, extended or deleted. Interrupted, it leaves nothing.`,
		Example:           "  nbdcrypt backup create db1 db1-monday\n  nbdcrypt backup create db1 db1-sunday --full",
		Args:              wants("DISK", "NAME"),
		ValidArgsFunction: a.completeDisk,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			return a.oneBackup(cmd, func(ctx context.Context, c *control.Client) (control.Backup, error) {
				return c.BackupCreate(ctx, control.BackupCreate{Disk: args[0], Name: args[1], Full: full})
			})
		}),
	}
	cmd.Flags().BoolVar(&full, "full", false, "take all of the disk, whatever backups there are")
	return cmd
}

func (a *app) backupList() *cobra.Command {
	var disk string
	cmd := &cobra.Command{
		Use: "list", Short: "List the project's backups",
		Long:    "List the backups of the project, or with --disk those of one disk, which may be deleted by now; the oldest first.",
		Example: "  nbdcrypt backup list\n  nbdcrypt backup list --disk db1 --json",
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("disk") && disk == "" {
				return usage(cmd, "--disk is empty")
			}
			backups, err := talk(a, cmd, func(ctx context.Context, c *control.Client) ([]control.Backup, error) { return c.BackupList(ctx, disk) })
			if err != nil {
				return err
			}
			return list(a, cmd, backups, "No backups: `nbdcrypt backup create DISK NAME` makes one.",
				"NAME DISK SIZE STORED KIND KEY CREATED ID", func(b control.Backup) []string {
					return []string{b.Name, b.Disk.Name, humanSize(b.Size), humanSize(b.Length), kindOf(b), keyOf(b.Encrypted, b.Key), moment(b.Created), b.ID}
				})
		}),
	}
	cmd.Flags().StringVar(&disk, "disk", "", "only those of this disk")
	_ = cmd.RegisterFlagCompletionFunc("disk", a.completeDisk) // the flag exists: it can't fail
	return cmd
}

// kindOf tells what a backup needs besides itself.
func kindOf(b control.Backup) string {
	if b.Parent == nil {
		return "full"
	}
	return "incremental"
}

func (a *app) backupShow() *cobra.Command {
	return &cobra.Command{
		Use: "show BACKUP", Short: "Show a backup",
		Long:              "Show a backup: its disk, its key, what it stands on, and the hash that stands for all of it.",
		Example:           "  nbdcrypt backup show db1-monday",
		Args:              wants("BACKUP"),
		ValidArgsFunction: a.completeBackup,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			return a.oneBackup(cmd, func(ctx context.Context, c *control.Client) (control.Backup, error) {
				return c.BackupShow(ctx, args[0])
			})
		}),
	}
}

func (a *app) oneBackup(cmd *cobra.Command, fn func(context.Context, *control.Client) (control.Backup, error)) error {
	b, err := talk(a, cmd, fn)
	if err != nil {
		return err
	}
	a.warn(cmd, b.Warnings)
	return a.result(cmd, b, func(w io.Writer) { table(w, func(t io.Writer) { printBackup(t, b) }) })
}

func printBackup(t io.Writer, b control.Backup) {
	fmt.Fprintf(t, "name\t%s\n", b.Name)
	fmt.Fprintf(t, "id\t%s\n", b.ID)
	fmt.Fprintf(t, "project\t%s\n", b.Project)
	fmt.Fprintf(t, "disk\t%s (%s)\n", b.Disk.Name, b.Disk.ID)
	fmt.Fprintf(t, "size\t%s\n", exactSize(b.Size))
	fmt.Fprintf(t, "sector size\t%d\n", b.SectorSize)
	fmt.Fprintf(t, "key\t%s\n", keyOf(b.Encrypted, b.Key))
	fmt.Fprintf(t, "status\t%s\n", b.Status)
	switch {
	case b.Parent != nil:
		fmt.Fprintf(t, "stands on\t%s %s\n", b.Parent.Name, b.Parent.ID)
	case b.Full != "":
		fmt.Fprintf(t, "full\t%s\n", b.Full)
	}
	fmt.Fprintf(t, "stored\t%s\n", exactSize(b.Length))
	fmt.Fprintf(t, "manifest\t%s\n", b.Manifest)
	if b.Foreign {
		fmt.Fprintf(t, "store\t%s, another one\n", b.Store)
	}
	fmt.Fprintf(t, "created\t%s\n", moment(b.Created))
}

// completeBackup completes the name of a backup as the first argument, or as a flag's value.
func (a *app) completeBackup(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 && cmd.Flag("from-backup") == nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all := func(c *control.Client, ctx context.Context) ([]control.Backup, error) { return c.BackupList(ctx, "") }
	return complete(a, cmd, all, func(b control.Backup) string { return b.Name + "\tof " + b.Disk.Name + ", " + moment(b.Created) })
}
