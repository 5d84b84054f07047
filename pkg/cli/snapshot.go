package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) snapshot() *cobra.Command {
	return group("snapshot", "What disks held at a moment",
		`A snapshot keeps what a disk held once. It is made in an instant, also while the disk is in use, and takes space as the disk changes. A disk has
up to 7. Disks are made from one with 'disk create --from-snapshot'. Names work wherever ids do.`,
		"  nbdcrypt snapshot create db1 before-upgrade\n  nbdcrypt snapshot list --disk db1\n  nbdcrypt snapshot rollback db1 before-upgrade",
		a.snapshotCreate(), a.snapshotList(), a.snapshotShow(), a.snapshotRollback(), a.snapshotDelete())
}

func (a *app) snapshotCreate() *cobra.Command {
	return &cobra.Command{
		Use: "create DISK NAME", Short: "Keep what a disk holds now",
		Long: `Make a snapshot of a disk, attached or not, in constant time: exactly the writes that were answered before, on every connection. Of a file system
that is in use it is what a power cut would have left; freeze or unmount it before to have more. The snapshot is encrypted as the disk is, under the
key that the disk has now; where that can't be used no snapshot is made, and the disk goes on.`,
		Example:           "  nbdcrypt snapshot create db1 before-upgrade",
		Args:              wants("DISK", "NAME"),
		ValidArgsFunction: a.completeDisk,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			return a.oneSnapshot(cmd, func(ctx context.Context, c *control.Client) (control.Snapshot, error) {
				return c.SnapshotCreate(ctx, control.SnapshotCreate{Disk: args[0], Name: args[1]})
			})
		}),
	}
}

func (a *app) snapshotList() *cobra.Command {
	var disk string
	cmd := &cobra.Command{
		Use: "list", Short: "List the project's snapshots",
		Long:    "List the snapshots of the project, or with --disk those of one disk, in the order of their names.",
		Example: "  nbdcrypt snapshot list\n  nbdcrypt snapshot list --disk db1 --json",
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("disk") && disk == "" {
				return usage(cmd, "--disk is empty")
			}
			snapshots, err := talk(a, cmd, func(ctx context.Context, c *control.Client) ([]control.Snapshot, error) {
				return c.SnapshotList(ctx, disk)
			})
			if err != nil {
				return err
			}
			return list(a, cmd, snapshots, "No snapshots: `nbdcrypt snapshot create DISK NAME` makes one.",
				"NAME DISK SIZE KEY STATUS CREATED ID", func(s control.Snapshot) []string {
					return []string{s.Name, diskOf(s), humanSize(s.Size), keyOf(s.Encrypted, s.Key), s.Status, moment(s.Created), s.ID}
				})
		}),
	}
	cmd.Flags().StringVar(&disk, "disk", "", "only those of this disk")
	_ = cmd.RegisterFlagCompletionFunc("disk", a.completeDisk) // the flag exists: it can't fail
	return cmd
}

func (a *app) snapshotShow() *cobra.Command {
	return &cobra.Command{
		Use: "show SNAP", Short: "Show a snapshot",
		Long:              "Show a snapshot: its disk, its size, and the key that it is under.",
		Example:           "  nbdcrypt snapshot show before-upgrade",
		Args:              wants("SNAP"),
		ValidArgsFunction: a.completeSnapshot,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			return a.oneSnapshot(cmd, func(ctx context.Context, c *control.Client) (control.Snapshot, error) {
				return c.SnapshotShow(ctx, args[0])
			})
		}),
	}
}

func (a *app) snapshotRollback() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "rollback DISK SNAP", Short: "Have a disk hold again what its snapshot holds",
		Long: `Have a disk hold again what one of its snapshots holds. What was written since is lost, and other snapshots stay as they are. The disk
must be detached, and the snapshot be its own. A disk that was extended since keeps its size; the rest of it reads as zeros. Asks first, unless --yes is given.`,
		Example:           "  nbdcrypt snapshot rollback db1 before-upgrade --yes",
		Args:              wants("DISK", "SNAP"),
		ValidArgsFunction: a.completeRollback,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			d, err := confirmed(a, cmd, yes, func(ctx context.Context, c *control.Client, yes bool) (control.Disk, error) {
				return c.DiskRollback(ctx, args[0], args[1], yes)
			})
			if err != nil {
				return err
			}
			a.warn(cmd, d.Warnings)
			return a.result(cmd, d, func(w io.Writer) { printDisk(w, d) })
		}),
	}
	yesFlag(cmd, &yes)
	return cmd
}

func (a *app) oneSnapshot(cmd *cobra.Command, fn func(context.Context, *control.Client) (control.Snapshot, error)) error {
	s, err := talk(a, cmd, fn)
	if err != nil {
		return err
	}
	a.warn(cmd, s.Warnings)
	return a.result(cmd, s, func(w io.Writer) {
		table(w, func(t io.Writer) {
			fmt.Fprintf(t, "name\t%s\n", s.Name)
			fmt.Fprintf(t, "id\t%s\n", s.ID)
			fmt.Fprintf(t, "project\t%s\n", s.Project)
			fmt.Fprintf(t, "disk\t%s\n", diskOf(s))
			fmt.Fprintf(t, "size\t%s\n", exactSize(s.Size))
			fmt.Fprintf(t, "sector size\t%d\n", s.SectorSize)
			fmt.Fprintf(t, "key\t%s\n", keyOf(s.Encrypted, s.Key))
			fmt.Fprintf(t, "status\t%s\n", s.Status)
			fmt.Fprintf(t, "created\t%s\n", moment(s.Created))
		})
	})
}

// diskOf is the disk that a snapshot is of. A record that can't be read does not tell.
func diskOf(s control.Snapshot) string {
	if s.Source == nil {
		return "unknown"
	}
	return s.Source.Name
}

// completeSnapshot completes the name of a snapshot as the first argument, or as the value of --from-snapshot.
func (a *app) completeSnapshot(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 && cmd.Flag("from-snapshot") == nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeSnapshotOf(cmd, "")
}

// completeRollback completes a disk, and then its snapshots.
func (a *app) completeRollback(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 1 {
		return a.completeSnapshotOf(cmd, args[0])
	}
	return a.completeDisk(cmd, args, word)
}

func (a *app) completeSnapshotOf(cmd *cobra.Command, disk string) ([]string, cobra.ShellCompDirective) {
	of := func(c *control.Client, ctx context.Context) ([]control.Snapshot, error) {
		return c.SnapshotList(ctx, disk)
	}
	return complete(a, cmd, of, func(s control.Snapshot) string { return s.Name + "\tof " + diskOf(s) + ", " + moment(s.Created) })
}
