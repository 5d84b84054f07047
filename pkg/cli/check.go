package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// severityDamage is the finding that makes check fail; any other is a note.
const severityDamage = "damage"

func (a *app) check() *cobra.Command {
	return &cobra.Command{
		Use: "check [DISK]", Short: "Look for damage, in one disk or in everything",
		Long: `Read the key store and the maps of layers, hold layers against what stands on them, and try which keys, disks, snapshots and images still
open. Of backups it looks for the file and the key; backup verify reads them. Each finding says what and where it is and what to do
next. Nothing is changed. Exit code 8 means that something is damaged.`,
		Example:           "  nbdcrypt check\n  nbdcrypt check db1 --json",
		Args:              wants("[DISK]"),
		ValidArgsFunction: a.completeDisk,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			disk := ""
			if len(args) > 0 {
				disk = args[0]
			}
			report, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.CheckReport, error) { return c.Check(ctx, disk) })
			if err != nil {
				return err
			}
			if err := a.result(cmd, report, func(w io.Writer) { printReport(w, report) }); err != nil {
				return err
			}
			return damage(report)
		}),
	}
}

func printReport(w io.Writer, r control.CheckReport) {
	for _, f := range r.Findings {
		fmt.Fprintf(w, "%s: %s: %s\n  where: %s\n  next:  %s\n", f.Severity, f.What, f.Problem, f.Where, f.Next)
	}
	points := ""
	if r.Points > 0 {
		points = fmt.Sprintf("%s, of which %d open, ", count(r.Points, "snapshot, image or backup", "snapshots, images and backups"), r.PointsOpen)
	}
	fmt.Fprintf(w, "checked %s, of which %d open, %s%s, of which %d open, %s: %s\n", count(r.Disks, "disk", "disks"), r.DisksOpen, points,
		count(r.Keys, "key", "keys"), r.KeysOpen, count(int(r.Blocks), "block", "blocks"), map[bool]string{true: "nothing is wrong", false: count(len(r.Findings), "finding", "findings")}[len(r.Findings) == 0])
}

func damage(r control.CheckReport) error {
	damaged := 0
	for _, f := range r.Findings {
		if f.Severity == severityDamage {
			damaged++
		}
	}
	if damaged == 0 {
		return nil
	}
	return refusal.New(refusal.Damaged, "what to do about each stands at its end", "check found %s of damage", count(damaged, "finding", "findings"))
}
