package cli

import (
	"context"
	"encoding/json"
	"io"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) disk() *cobra.Command {
	return group("disk", "Virtual disks",
		`A disk has exactly its size, and is encrypted or plain from its creation to its end. Names work wherever ids do.`,
		"  nbdcrypt disk create db1 --size 10G --encrypted --key payroll\n  nbdcrypt disk list\n  nbdcrypt disk extend db1 --size 20G",
		a.diskCreate(), a.diskList(), a.diskShow(), a.diskExtend(), a.diskRewrap(), a.diskRekey(), a.diskDelete(), a.diskEscrow(), a.diskExport())
}

func (a *app) diskList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the project's disks",
		Long:    "List the disks of the project with their sizes, keys and states.",
		Example: "  nbdcrypt disk list --json",
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if a.json {
				return stream(a, cmd, func(ctx context.Context, c *control.Client, next func(json.RawMessage) error) error {
					return control.EachDisk(ctx, c, next)
				})
			}
			disks, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (rows []control.DiskLine, err error) {
				err = control.EachDisk(ctx, c, func(d control.DiskLine) error { rows = append(rows, d); return nil })
				return rows, err
			})
			if err != nil {
				return err
			}
			return list(a, cmd, disks, "No disks: `nbdcrypt disk create NAME --size 10G --encrypted` makes one.",
				"NAME SIZE KEY STATUS CREATED ID", func(d control.DiskLine) []string {
					return []string{d.Name, humanSize(d.Size), keyOf(d.Encrypted, d.Key), d.Status, moment(d.Created), d.ID}
				})
		}),
	}
}

func (a *app) diskShow() *cobra.Command {
	return &cobra.Command{
		Use: "show DISK", Short: "Show a disk",
		Long:              "Show a disk: its size, its key, its layers (top first) with the files that hold them, and where it is attached.",
		Example:           "  nbdcrypt disk show db1\n  nbdcrypt disk show db1 --json",
		Args:              wants("DISK"),
		ValidArgsFunction: a.completeDisk,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			return a.oneDisk(cmd, func(ctx context.Context, c *control.Client) (control.Disk, error) {
				d, err := c.DiskShow(ctx, args[0])
				if err == nil {
					d.Warnings = append(d.Warnings, a.machine.lonely(d)...)
				}
				return d, err
			})
		}),
	}
}

func (a *app) diskExtend() *cobra.Command {
	var size string
	cmd := &cobra.Command{
		Use: "extend DISK --size SIZE", Short: "Make a disk larger",
		Long:              "Make a disk larger, attached or not. Clients see the new size when they connect again. A disk is never made smaller.",
		Example:           "  nbdcrypt disk extend db1 --size 20G",
		Args:              wants("DISK"),
		ValidArgsFunction: a.completeDisk,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("size") {
				return usage(cmd, "--size is missing")
			}
			n, err := parseSize(cmd, size, minSector) // which sector size the disk has, the daemon knows
			if err != nil {
				return err
			}
			return a.oneDisk(cmd, func(ctx context.Context, c *control.Client) (control.Disk, error) {
				return c.DiskExtend(ctx, args[0], n)
			})
		}),
	}
	sizeFlag(cmd, &size)
	return cmd
}

func (a *app) oneDisk(cmd *cobra.Command, fn func(context.Context, *control.Client) (control.Disk, error)) error {
	d, err := talk(a, cmd, fn)
	if err != nil {
		return err
	}
	a.warn(cmd, d.Warnings)
	return a.result(cmd, d, func(w io.Writer) { printDisk(w, d) })
}
