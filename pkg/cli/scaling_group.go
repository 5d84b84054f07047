package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) scalingGroup() *cobra.Command {
	return group("group", "Servers that are made alike",
		`A scaling group has servers, its members, that its configuration says how to make: NAME-1, NAME-2 and so on. Their system disks share the image's data, so that making one
takes no longer for a large image; every disk has a data key of its own. Names work wherever ids do.`,
		"  nbdcrypt scaling group create shop --config web --min 1 --max 10\n  nbdcrypt scaling group scale shop 5 --start\n  nbdcrypt scaling group show shop",
		a.groupCreate(), a.groupScale(), a.groupList(), a.groupShow(), a.groupDelete())
}

func (a *app) groupCreate() *cobra.Command {
	var ask control.GroupCreate
	var start bool
	cmd := &cobra.Command{
		Use: "create NAME --config CONFIG --min A --max B", Short: "Make a scaling group with its first members",
		Long: `Make a scaling group that has at least A and at most B members, and at first A. Where a key of its configuration can't be used, that is told before anything is made; where
it fails half-way, nothing of it stays.

Members are made stopped. With --start those that were made are started too, as 'server start' does, each with a runner that stays behind; where one can't be started it
stays, and the exit code says why.`,
		Example: "  nbdcrypt scaling group create shop --config web --min 1 --max 10\n  nbdcrypt scaling group create shop --config web --min 3 --max 10 --start",
		Args:    wants("NAME"),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			ask.Name = args[0]
			switch {
			case ask.Config == "":
				return usage(cmd, "--config is missing: it says how members are made")
			case !cmd.Flags().Changed("min") || !cmd.Flags().Changed("max"):
				return usage(cmd, "--min and --max are missing: how many members the group may have")
			case ask.Min < 0 || ask.Max < 1 || ask.Min > ask.Max:
				return usage(cmd, "--min %d and --max %d: a group has at least 0 members, may have at least 1, and never more at least than at most", ask.Min, ask.Max)
			}
			return a.scaled(cmd, start, false, func(ctx context.Context, c *control.Client, _ bool) (control.ScalingGroup, error) {
				g, err := c.GroupCreate(ctx, ask)
				g.Made = nil // all of them are
				for _, m := range g.Members {
					g.Made = append(g.Made, m.Name)
				}
				return g, err
			})
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&ask.Config, "config", "", "the scaling configuration that its members are made by")
	flags.IntVar(&ask.Min, "min", 0, "how many members it has at least")
	flags.IntVar(&ask.Max, "max", 0, "how many members it has at most")
	startFlag(cmd, &start)
	_ = cmd.RegisterFlagCompletionFunc("config", a.completeConfigFlag) // the flags exist: it can't fail
	for _, name := range []string{"min", "max"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	return cmd
}

func startFlag(cmd *cobra.Command, start *bool) {
	cmd.Flags().BoolVar(start, "start", false, "start the members that were made")
}

func (a *app) groupScale() *cobra.Command {
	var yes, start, force bool
	cmd := &cobra.Command{
		Use: "scale GROUP N", Short: "Have a scaling group have N members",
		Long: `Make members, or delete the newest, until there are N. Numbers are not used again. Members that run and have to go are shut down first, as 'server stop' does, or with
--force switched off; all that go are deleted with their disks, which asks first, unless --yes is given.

Whether the keys can be used is looked at before anything is made. Where it fails half-way, the members that this call has made are deleted again, and it says how far it
was. With --start the new members are started, as 'server start' does; where one can't be started it stays, and the exit code says why.`,
		Example:           "  nbdcrypt scaling group scale shop 5 --start\n  nbdcrypt scaling group scale shop 2 --yes",
		Args:              wants("GROUP", "N"),
		ValidArgsFunction: a.completeGroup,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			n, err := strconv.Atoi(args[1])
			if err != nil || n < 0 {
				return usage(cmd, "N is how many members there shall be, not %q", args[1])
			}
			return a.scaled(cmd, start, yes, func(ctx context.Context, c *control.Client, yes bool) (control.ScalingGroup, error) {
				return c.GroupScale(ctx, args[0], control.GroupScale{Size: n, Force: force}, yes)
			})
		}),
	}
	yesFlag(cmd, &yes)
	startFlag(cmd, &start)
	membersForce(cmd, &force)
	return cmd
}

// membersForce is the flag for guests that nobody waits for: they go with their disks.
func membersForce(cmd *cobra.Command, force *bool) {
	cmd.Flags().BoolVar(force, "force", false, "switch members that go off at once, instead of shutting them down")
}

// scaled makes a call that may make members, and starts those where start says so. What could not be started is the error, and all stays.
func (a *app) scaled(cmd *cobra.Command, start, yes bool, fn func(context.Context, *control.Client, bool) (control.ScalingGroup, error)) error {
	if start {
		if err := a.machine.qemu(); err != nil {
			return err // before anything is made
		}
	}
	g, err := confirmed(a, cmd, yes, fn)
	if err != nil {
		return err
	}
	var failedToStart error
	if start && len(g.Made) > 0 {
		failedToStart = a.startMembers(cmd, &g)
	}
	if err := a.printedGroup(cmd, g); err != nil {
		return err
	}
	return failedToStart
}

// startMembers starts the members that a scaling has made, and notes what came of it.
func (a *app) startMembers(cmd *cobra.Command, g *control.ScalingGroup) error {
	all, err := a.startServers(cmd, g.Made, startHow{reconnect: defaultReconnect})
	if err != nil {
		return err
	}
	for _, d := range all {
		g.Warnings = append(g.Warnings, d.value.Warnings...)
		for i := range g.Members {
			if d.err == nil && g.Members[i].ID == d.value.ID {
				g.Members[i].Status = d.value.Status
			}
		}
	}
	return failed(all, notStarted)
}

func (a *app) groupList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the project's scaling groups",
		Long:    "List the scaling groups of the project, with how many members they have and may have.",
		Example: "  nbdcrypt scaling group list --json",
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			groups, err := talk(a, cmd, func(ctx context.Context, c *control.Client) ([]control.ScalingGroup, error) { return c.GroupList(ctx) })
			if err != nil {
				return err
			}
			return list(a, cmd, groups, "No scaling groups: `nbdcrypt scaling group create NAME --config CONFIG --min A --max B` makes one.",
				"NAME CONFIG SIZE MIN MAX CREATED ID", func(g control.ScalingGroup) []string {
					return []string{g.Name, g.Config.Name, strconv.Itoa(g.Size), strconv.Itoa(g.Min), strconv.Itoa(g.Max), moment(g.Created), g.ID}
				})
		}),
	}
}

func (a *app) groupShow() *cobra.Command {
	return &cobra.Command{
		Use: "show GROUP", Short: "Show a scaling group",
		Long:              "Show a scaling group: its configuration, how many members it may have, and which it has.",
		Example:           "  nbdcrypt scaling group show shop",
		Args:              wants("GROUP"),
		ValidArgsFunction: a.completeGroup,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			g, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.ScalingGroup, error) {
				return c.GroupShow(ctx, args[0])
			})
			if err != nil {
				return err
			}
			return a.printedGroup(cmd, g)
		}),
	}
}

func (a *app) groupDelete() *cobra.Command {
	var yes, force bool
	cmd := &cobra.Command{
		Use: "delete GROUP", Short: "Delete a scaling group with its members",
		Long: `Delete a scaling group, its members and their disks. Members that run are shut down first, as 'server stop' does, or with --force switched off. Its configuration stays.
Asks first, unless --yes is given.`,
		Example:           "  nbdcrypt scaling group delete shop --yes\n  nbdcrypt scaling group delete shop --force --yes",
		Args:              wants("GROUP"),
		ValidArgsFunction: a.completeGroup,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			_, err := confirmed(a, cmd, yes, func(ctx context.Context, c *control.Client, yes bool) (struct{}, error) {
				return struct{}{}, c.GroupDelete(ctx, args[0], force, yes)
			})
			if err == nil {
				a.say(cmd, "scaling group %s is deleted, with its members", args[0])
			}
			return err
		}),
	}
	yesFlag(cmd, &yes)
	membersForce(cmd, &force)
	return cmd
}

func (a *app) printedGroup(cmd *cobra.Command, g control.ScalingGroup) error {
	g.Members = control.List(g.Members)
	a.warn(cmd, g.Warnings)
	return a.result(cmd, g, func(w io.Writer) { printGroup(w, g) })
}

func printGroup(w io.Writer, g control.ScalingGroup) {
	table(w, func(t io.Writer) {
		fmt.Fprintf(t, "name\t%s\n", g.Name)
		fmt.Fprintf(t, "id\t%s\n", g.ID)
		fmt.Fprintf(t, "project\t%s\n", g.Project)
		fmt.Fprintf(t, "config\t%s\n", g.Config.Name)
		fmt.Fprintf(t, "size\t%d (%d to %d)\n", g.Size, g.Min, g.Max)
		for _, change := range []struct {
			what  string
			names []string
		}{{"made", g.Made}, {"deleted", g.Deleted}} {
			if len(change.names) > 0 {
				fmt.Fprintf(t, "%s\t%s\n", change.what, strings.Join(change.names, ", "))
			}
		}
		fmt.Fprintf(t, "created\t%s\n", moment(g.Created))
	})
	if len(g.Members) == 0 {
		return
	}
	fmt.Fprintln(w)
	table(w, func(t io.Writer) {
		fmt.Fprintln(t, "MEMBER\tSTATUS\tID")
		for _, m := range g.Members {
			fmt.Fprintf(t, "%s\t%s\t%s\n", m.Name, m.Status, m.ID)
		}
	})
}
