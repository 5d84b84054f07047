package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) clock() *cobra.Command {
	return group("clock", "How the daemon judges the machine's clock",
		`Keys are destroyed at a date. A clock that was set back does not put that off for what was due already; one that is more than 30 days
ahead of what is known to have gone by destroys nothing until somebody has looked at it.`,
		"  nbdcrypt clock show\n  nbdcrypt clock accept",
		a.clockShow(), a.clockAccept())
}

func (a *app) clockShow() *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Show the clock, the latest time that was seen, and what waits for it",
		Long:    "Show what the machine's clock says, what the daemon knows to have gone by, and the keys whose date of deletion has come.",
		Example: "  nbdcrypt clock show",
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			c, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.Clock, error) { return c.ClockShow(ctx) })
			if err != nil {
				return err
			}
			return a.printsClock(cmd, c)
		}),
	}
}

func (a *app) clockAccept() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "accept", Short: "Take the machine's clock for right",
		Long: `Take what the machine's clock shows for right, be it ahead or behind. Where it was far ahead, keys whose date has come by it are
destroyed at once; they are named first, and it asks, unless --yes is given.`,
		Example: "  nbdcrypt clock accept",
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			c, err := confirmed(a, cmd, yes, func(ctx context.Context, c *control.Client, yes bool) (control.Clock, error) {
				return c.ClockAccept(ctx, yes)
			})
			if err != nil {
				return err
			}
			return a.printsClock(cmd, c)
		}),
	}
	yesFlag(cmd, &yes)
	return cmd
}

func (a *app) printsClock(cmd *cobra.Command, c control.Clock) error {
	c.Due = control.List(c.Due)
	return a.result(cmd, c, func(w io.Writer) { printClock(w, c) })
}

func printClock(w io.Writer, c control.Clock) {
	table(w, func(t io.Writer) {
		fmt.Fprintf(t, "clock\t%s, %s\n", moment(c.Now), clockWord(c))
		if c.Seen != nil {
			fmt.Fprintf(t, "seen\t%s\n", moment(*c.Seen))
		}
		fmt.Fprintf(t, "deletions\tgo by %s\n", moment(c.Latest))
		for _, k := range c.Due {
			fmt.Fprintf(t, "due\t%s of project %s, since %s\n", k.Alias, k.Project, moment(*k.DeletionDate))
		}
	})
}

func clockWord(c control.Clock) string {
	by := (time.Duration(c.By) * time.Second).String()
	if days := int(c.By / (24 * 3600)); days > 1 {
		by = count(days, "day", "days")
	}
	switch c.State {
	case control.ClockBehind:
		return by + " behind a time that was seen"
	case control.ClockAhead:
		return by + " ahead of what is known to have gone by: nothing is destroyed on its own"
	}
	return "taken for right"
}
