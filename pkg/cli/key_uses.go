package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) keyUses() *cobra.Command {
	return &cobra.Command{
		Use: "uses KEY", Short: "List what is under a key",
		Long:              "List all disks, attached or not, and all snapshots, images and backups that can't be read without a key,\nand all scaling configurations that make servers under it.",
		Example:           "  nbdcrypt key uses payroll",
		Args:              wants("KEY"),
		ValidArgsFunction: a.completeKey,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			uses, err := talk(a, cmd, func(ctx context.Context, c *control.Client) ([]control.KeyUse, error) { return c.KeyUses(ctx, args[0]) })
			if err != nil {
				return err
			}
			return list(a, cmd, uses, "Nothing is under it.", "KIND NAME ATTACHED ID", func(u control.KeyUse) []string {
				return []string{u.Kind, u.Name, yesNo(u.Attached), u.ID}
			})
		}),
	}
}

// dryRunFlag adds --dry-run to a command that makes a key unusable.
func dryRunFlag(cmd *cobra.Command, dry *bool) {
	cmd.Flags().BoolVar(dry, "dry-run", false, "only show what it would do")
}

// predict shows what a verb would do to a key and what is under it.
func (a *app) predict(cmd *cobra.Command, key, verb string, days int) error {
	p, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.Prediction, error) {
		return c.KeyPredict(ctx, key, verb, days)
	})
	if err != nil {
		return err
	}
	p.Effects = control.List(p.Effects)
	return a.result(cmd, p, func(w io.Writer) { printPrediction(w, p) })
}

func printPrediction(w io.Writer, p control.Prediction) {
	fmt.Fprintf(w, "This would be done to key %s, and nothing was:\n", p.Key.Alias)
	table(w, func(t io.Writer) {
		fmt.Fprintf(t, "state\t%s, now %s\n", p.State, p.Key.State)
		if p.Date != nil {
			fmt.Fprintf(t, "destroyed\t%s\n", moment(*p.Date))
		}
		undo := "nothing undoes it"
		if p.Undo != "" {
			undo = p.Undo
		}
		fmt.Fprintf(t, "undone by\t%s\n", undo)
	})
	if len(p.Effects) == 0 {
		fmt.Fprintln(w, "\nNothing is under it.")
		return
	}
	fmt.Fprintln(w)
	table(w, func(t io.Writer) {
		fmt.Fprintln(t, "KIND\tNAME\tI/O\tATTACH\tID")
		for _, e := range p.Effects {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", e.Kind, e.Name, ioWord(e), attachWord(e), e.ID)
		}
	})
}

func ioWord(e control.Effect) string {
	if e.IO == control.IOUntilDetach {
		return "goes on until detached"
	}
	return "none, it is not attached"
}

func attachWord(e control.Effect) string {
	switch {
	case e.Attach == control.AttachNever:
		return "never again"
	case e.From == nil:
		return "refused, as it is now"
	}
	return "refused from now on"
}
