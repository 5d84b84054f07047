package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) grant() *cobra.Command {
	return group("grant", "The key store's rights for a project",
		`Encryption may be used in a project once a security administrator has granted it the key store's rights. The first grant
also makes the project's default key, evs/default.`,
		"  nbdcrypt grant create --project shop\n  nbdcrypt grant list",
		a.grantCreate(), a.grantList(), a.grantRevoke())
}

func (a *app) grantCreate() *cobra.Command {
	return &cobra.Command{
		Use: "create", Short: "Let a project use encryption",
		Long:    "Grant the project the key store's rights in this region. A second grant changes nothing.",
		Example: "  nbdcrypt grant create\n  nbdcrypt grant create --project shop",
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			g, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.Grant, error) { return c.GrantCreate(ctx) })
			if err != nil {
				return err
			}
			return a.result(cmd, g, func(w io.Writer) {
				fmt.Fprintf(w, "project %s may use encryption in region %s (granted by %s, %s)\n", g.Project, g.Region, g.By, moment(g.Created))
			})
		}),
	}
}

func (a *app) grantList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List which projects may use encryption",
		Long:    "List the grants of this region that you may see.",
		Example: "  nbdcrypt grant list --json",
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			grants, err := talk(a, cmd, func(ctx context.Context, c *control.Client) ([]control.Grant, error) { return c.GrantList(ctx) })
			if err != nil {
				return err
			}
			return list(a, cmd, grants, "No project may use encryption yet: `nbdcrypt grant create` lets one.", "PROJECT REGION BY CREATED",
				func(g control.Grant) []string { return []string{g.Project, g.Region, g.By, moment(g.Created)} })
		}),
	}
}

func (a *app) grantRevoke() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "revoke", Short: "Take a project's rights back",
		Long: `Take the key store's rights from the project: its encrypted disks can't be attached until they are granted again. Where it has
such disks, this asks first.`,
		Example: "  nbdcrypt grant revoke --project shop --yes",
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			_, err := confirmed(a, cmd, yes, func(ctx context.Context, c *control.Client, yes bool) (struct{}, error) {
				return struct{}{}, c.GrantRevoke(ctx, yes)
			})
			if err == nil {
				a.say(cmd, "project %s may not use encryption any more", a.project)
			}
			return err
		}),
	}
	yesFlag(cmd, &yes)
	return cmd
}
